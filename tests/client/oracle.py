"""What the query API must answer, from the clicks alone: an independent count that shares no code with tollgate. It is fed NDJSON, each
line as it was sent, and keeps every click; an answer is a walk over all of them."""

import json
from collections import Counter, defaultdict, namedtuple

# User agents as browsers send them, and what each is: device, agent, and the class where it is no person.
AGENTS = {
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36":
        ("desktop", "chrome", "valid"),
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 "
    "Safari/604.1": ("mobile", "safari", "valid"),
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0": ("desktop", "firefox", "valid"),
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": ("bot", "bot", "bot_user_agent"),
    "": ("unknown", "unknown", "valid"),
}
LENGTHS_MS = {"1m": 60_000, "5m": 300_000, "1h": 3_600_000, "1d": 86_400_000}
PANE_MS = 10_000

Click = namedtuple("Click", "id at_ms ad_id campaign_id advertiser_id region user device agent class_")


class Oracle:
    def __init__(self):
        self.clicks, self.ids = [], set()

    def feed(self, lines, prefetch=False):
        """Takes clicks in as they were sent; a request with Sec-Purpose: prefetch says so."""
        for line in lines.splitlines():
            sent = json.loads(line)
            if sent["request_id"] in self.ids:
                continue
            self.ids.add(sent["request_id"])
            device, agent, class_ = AGENTS[sent.get("user_agent", "")]
            if prefetch and class_ == "valid":
                class_ = "prefetch"
            self.clicks.append(Click(
                sent["request_id"], sent["timestamp"], sent["ad_id"], sent.get("campaign_id"), sent.get("advertiser_id"),
                sent.get("region", "unknown"), sent.get("user_id"), device, agent, class_))

    def taken(self, from_ms, to_ms, ad_id=None, campaign_id=None, advertiser_id=None, region=None, user_agent=None):
        """The clicks that a question is about."""
        return [click for click in self.clicks
                if from_ms <= click.at_ms < to_ms and ad_id in (None, click.ad_id) and campaign_id in (None, click.campaign_id)
                and advertiser_id in (None, click.advertiser_id) and region in (None, click.region)
                and user_agent in (None, click.device, click.agent)]

    def count(self, from_ms, to_ms, granularity=None, group_by=None, **wanted):
        """Sums, and rows by window and group: (gross, net, users) of each."""
        grain_ms = LENGTHS_MS.get(granularity, PANE_MS)
        from_ms, to_ms = from_ms // grain_ms * grain_ms, -(-to_ms // grain_ms) * grain_ms
        taken, rows = self.taken(from_ms, to_ms, **wanted), defaultdict(list)
        field = {"ad": "ad_id", "class": "class_"}.get(group_by, group_by)
        for click in taken:
            start_ms = click.at_ms // grain_ms * grain_ms if granularity else from_ms
            rows[start_ms, getattr(click, field) if field else None].append(click)
        counted = {at: sums(clicks) for at, clicks in rows.items()}
        return {"from_ms": from_ms, "to_ms": to_ms, "sums": sums(taken), "rows": counted,
                "classes": dict(Counter(click.class_ for click in taken))}

    def top(self, from_ms, to_ms, k, by="net", region=None, campaign_id=None):
        """Ads with their (gross, net), the most first; equal ones by name."""
        by_ad = defaultdict(list)
        for click in self.taken(from_ms, to_ms, region=region, campaign_id=campaign_id):
            by_ad[click.ad_id].append(click)
        place = 0 if by == "gross" else 1
        ads = [(ad_id, *sums(clicks)[:2]) for ad_id, clicks in by_ad.items()]
        ads = [ad for ad in ads if ad[1 + place] > 0]
        return sorted(ads, key=lambda ad: (-ad[1 + place], ad[0]))[:k]

    def by_minute(self, ad_id, before_ms):
        """(gross, net) of minutes that end by then."""
        added = defaultdict(list)
        for click in self.clicks:
            minute_ms = click.at_ms // 60_000 * 60_000
            if click.ad_id == ad_id and minute_ms + 60_000 <= before_ms:
                added[minute_ms].append(click)
        return {minute_ms: sums(clicks)[:2] for minute_ms, clicks in added.items()}


def sums(clicks):
    """(gross, net, distinct users of net clicks)"""
    net = [click for click in clicks if click.class_ == "valid"]
    return len(clicks), len(net), len({click.user for click in net if click.user is not None})
