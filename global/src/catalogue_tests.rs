//! The catalogue over a store: whom clicks count for follows it, how many each ad has does not.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tollgate_wire::Partial;

use crate::catalogue::CatalogueFile;
use crate::fixture::{partial, transaction};
use crate::key::PANE_MS;
use crate::question::{Filter, Group, GroupBy, Question, RankBy, Scope, Subject, TopQuestion, TopWindow};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::whose::Whose;
use crate::window::{Granularity, MINUTE_MS, Window};

/// 2024-04-12T08:00:00Z.
const START_MS: i64 = 1_712_908_800_000;

struct Fixed {
    store: Store,
    file: Arc<CatalogueFile>,
    path: PathBuf,
    seq: u64,
    _folder: tempfile::TempDir,
}

fn clicks(ad_id: &str, campaign_id: &str, advertiser_id: &str, pane_ms: i64, clicks: u64) -> Partial {
    Partial {
        campaign_id: campaign_id.into(),
        advertiser_id: advertiser_id.into(),
        ..partial(ad_id, pane_ms, 0, clicks, &[])
    }
}

impl Fixed {
    fn new(ads: &str) -> Fixed {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("ads.csv");
        fs::write(&path, ads).expect("written");
        let file = Arc::new(CatalogueFile::open(Some(&path), folder.path(), 1).expect("good"));
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        store.use_catalogue(file.clone());
        Fixed { store, file, path, seq: 0, _folder: folder }
    }

    fn sends(&mut self, watermark_ms: i64, partials: Vec<Partial>) {
        self.seq += 1;
        self.store.commit(&transaction("e", self.seq, watermark_ms, partials)).expect("committed");
    }

    fn says(&self, ads: &str) {
        fs::write(&self.path, ads).expect("written");
        (0..2).for_each(|_| self.file.look(2));
    }

    fn snapshot(&self) -> Snapshot {
        self.store.snapshot().expect("snapshot")
    }

    fn gross(&self, subject: Subject, scope: Option<&Scope>) -> u64 {
        self.snapshot().count(&question(subject, scope)).expect("counted").total.sums.gross()
    }

    fn campaign(&self, id: &str) -> u64 {
        self.gross(Subject::Campaign(id.to_owned()), None)
    }

    /// Of three ads, folded and open, each in two panes.
    fn filled(ads: &str) -> Fixed {
        let mut fixed = Fixed::new(ads);
        for (at, pane_ms) in [START_MS, START_MS + PANE_MS].into_iter().enumerate() {
            let partials = vec![
                clicks("told", "c1", "adv1", pane_ms, 1),
                clicks("silent", "", "", pane_ms, 10),
                clicks("other", "c2", "adv2", pane_ms, 100),
            ];
            fixed.sends(START_MS + at as i64 * PANE_MS, partials);
        }
        fixed
    }
}

fn question(subject: Subject, scope: Option<&Scope>) -> Question {
    Question {
        subject,
        span: Window { start_ms: START_MS, end_ms: START_MS + 10 * MINUTE_MS },
        granularity: None,
        group_by: None,
        filter: Filter { scope: scope.cloned().map(Arc::new), ..Filter::default() },
        after: None,
        rows_max: 100,
    }
}

fn ad(id: &str) -> Subject {
    Subject::Ad(id.to_owned())
}

fn of_campaign(id: &str) -> Scope {
    Scope { campaigns: [id.to_owned()].into(), ..Scope::default() }
}

#[test]
fn campaigns_and_advertisers_follow_the_catalogue_and_its_changes() {
    let fixed = Fixed::filled("ad_id,campaign_id,advertiser_id\ntold,c9,adv9\nsilent,c1,adv1\n");
    let counts = |fixed: &Fixed| ["c1", "c2", "c9"].map(|id| fixed.campaign(id));
    assert_eq!(counts(&fixed), [20, 200, 2]);
    let advertisers = ["adv1", "adv2", "adv9"].map(|id| fixed.gross(Subject::Advertiser(id.to_owned()), None));
    assert_eq!(advertisers, [20, 200, 2]);
    let grouped = Question { group_by: Some(GroupBy::Ad), ..question(Subject::Campaign("c1".to_owned()), None) };
    let rows = fixed.snapshot().count(&grouped).expect("counted").rows;
    assert_eq!(rows.iter().map(|row| row.group.clone()).collect::<Vec<_>>(), [Some(Group::Ad("silent".to_owned()))]);
    // A new file is in force for what was counted long ago, too.
    fixed.says("ad_id,campaign_id\nsilent,c2\nnever clicked,c1\n");
    assert_eq!(counts(&fixed), [2, 220, 0]);
    fixed.says("ad_id,campaign_id\nbroken\n");
    assert_eq!(counts(&fixed), [2, 220, 0]);
    // Counts of an ad, and of all, are never changed by it.
    assert_eq!(["told", "silent", "other"].map(|id| fixed.gross(ad(id), None)), [2, 20, 200]);
    assert_eq!(fixed.gross(Subject::All, None), 222);
}

#[test]
fn what_is_said_otherwise_is_counted_in_clicks() {
    let mut fixed = Fixed::filled("ad_id,campaign_id,advertiser_id\ntold,c9,adv1\nsilent,c1,adv1\nother,,adv9\n");
    assert_eq!(fixed.file.mismatches(), [2, 200], "told names another campaign, other another advertiser");
    fixed.sends(
        START_MS + PANE_MS,
        vec![clicks("told", "c9", "adv2", START_MS, 7), clicks("unlisted", "c1", "", START_MS, 5)],
    );
    assert_eq!(fixed.file.mismatches(), [2, 207]);
}

#[test]
fn a_scope_sees_what_the_catalogue_gives_it_and_nothing_of_the_rest() {
    let mut fixed = Fixed::filled("ad_id,campaign_id,advertiser_id\ntold,c9,adv9\nsilent,c1,adv1\n");
    let (c1, c2) = (of_campaign("c1"), of_campaign("c2"));
    assert_eq!([&c1, &c2].map(|scope| fixed.gross(Subject::All, Some(scope))), [20, 200]);
    let seen = |scope| ["told", "silent", "other", "none"].map(|id| fixed.gross(ad(id), Some(scope)));
    assert_eq!([seen(&c1), seen(&c2)], [[0, 20, 0, 0], [0, 0, 200, 0]]);
    assert_eq!(fixed.gross(Subject::Campaign("c9".to_owned()), Some(&c1)), 0);
    assert_eq!(fixed.gross(Subject::Advertiser("adv1".to_owned()), Some(&c1)), 20, "its own rows, by another name");
    let adv9 = Scope { advertisers: ["adv9".to_owned()].into(), ..Scope::default() };
    assert_eq!(fixed.gross(Subject::All, Some(&adv9)), 2);
    // Corrections of an ad that is another's say nothing, not even that there is such an ad.
    fixed.sends(START_MS + 2 * MINUTE_MS, Vec::new());
    fixed.sends(START_MS + 3 * MINUTE_MS, vec![clicks("told", "c1", "adv1", START_MS, 3)]);
    fixed.sends(START_MS + 11 * MINUTE_MS, Vec::new());
    let version = |id: &str, scope: Option<&Scope>| {
        let asked = Question { granularity: Some(Granularity::Minute), ..question(ad(id), scope) };
        let counts = fixed.snapshot().count(&asked).expect("counted");
        (counts.total.version, counts.rows.len())
    };
    assert_eq!([version("told", None).0, version("none", None).0], [2, 1]);
    assert_eq!(version("told", Some(&c1)), version("none", Some(&c1)));
    let may_see = |scope: &Scope| {
        ["told", "silent", "other", "none"].map(|id| {
            let snapshot = fixed.snapshot();
            Whose::of(&snapshot).expect("read").may_see(scope, id).expect("read")
        })
    };
    assert_eq!([may_see(&c1), may_see(&c2)], [[false, true, false, false], [false, false, true, false]]);
}

#[test]
fn the_ranking_is_within_the_scope() {
    let mut fixed = Fixed::filled("ad_id,campaign_id\ntold,c9\nsilent,c1\n");
    fixed.sends(START_MS + MINUTE_MS, Vec::new());
    while fixed.store.keep_up(START_MS + MINUTE_MS).expect("kept") {}
    let top = |scope: Option<Scope>| {
        let asked = TopQuestion {
            window: TopWindow::Minute,
            k: 5,
            by: RankBy::Gross,
            region: None,
            scope: scope.map(Arc::new),
        };
        let ads = fixed.snapshot().top(&asked).expect("warm").ads;
        ads.into_iter().map(|ad| (ad.ad_id, ad.gross)).collect::<Vec<_>>()
    };
    let of = |ads: &[(&str, u64)]| ads.iter().map(|(ad, gross)| ((*ad).to_owned(), *gross)).collect::<Vec<_>>();
    assert_eq!(top(None), of(&[("other", 200), ("silent", 20), ("told", 2)]));
    assert_eq!(top(Some(of_campaign("c1"))), of(&[("silent", 20)]));
    assert_eq!(top(Some(of_campaign("c9"))), of(&[("told", 2)]));
    assert_eq!(top(Some(of_campaign("c3"))), of(&[]));
}

/// With more ads than are looked up one by one, the rows of the span are read, to the same sums.
#[test]
fn a_campaign_of_very_many_ads_has_the_same_sums() {
    let mut ads = "ad_id,campaign_id\ntold,big\nother,c2\n".to_owned();
    (0..crate::whose::LOOKED_UP_MAX).for_each(|n| ads.push_str(&format!("never clicked {n},big\n")));
    let fixed = Fixed::filled(&ads);
    assert_eq!([fixed.campaign("big"), fixed.campaign("c2")], [2, 200]);
    assert_eq!(fixed.gross(Subject::All, Some(&of_campaign("big"))), 2);
    let both = Scope { campaigns: ["big".to_owned(), "c2".to_owned()].into(), ..Scope::default() };
    assert_eq!([fixed.gross(Subject::All, Some(&both)), fixed.gross(ad("silent"), Some(&both))], [202, 0]);
    // Of very many own ads those that are somebody's, too: all, one, none.
    let of_campaigns = ["big", "c2", "c3"].map(|id| fixed.gross(Subject::Campaign(id.to_owned()), Some(&both)));
    assert_eq!(of_campaigns, [2, 200, 0]);
    let of_advertisers = ["adv1", "adv2"].map(|id| fixed.gross(Subject::Advertiser(id.to_owned()), Some(&both)));
    assert_eq!(of_advertisers, [2, 200], "clicks' own word, where the catalogue does not say");
}

/// Corrections are kept by ad, whoever its clicks are of: a click that names another's ad and one's own campaign shows none.
#[test]
fn corrections_are_seen_only_of_ads_that_are_wholly_ones_own() {
    let mut fixed = Fixed::filled("ad_id,campaign_id,advertiser_id\ntold,c9,adv9\nhalf,c1,\n");
    fixed.sends(START_MS + 2 * MINUTE_MS, vec![clicks("victim", "c2", "adv2", START_MS, 8)]);
    // The asker's own click, of its own campaign, with the ad of another; then the other's corrections.
    fixed.sends(START_MS + 3 * MINUTE_MS, vec![clicks("victim", "c1", "", START_MS + 2 * MINUTE_MS, 1)]);
    fixed.sends(START_MS + 3 * MINUTE_MS, vec![clicks("half", "c1", "adv2", START_MS, 1)]);
    for ad_id in ["victim", "told", "told"] {
        fixed.sends(START_MS + 3 * MINUTE_MS, vec![clicks(ad_id, "c2", "adv2", START_MS, 4)]);
    }
    fixed.sends(START_MS + 11 * MINUTE_MS, Vec::new());
    let version = |subject: Subject, scope: Option<&Scope>| {
        fixed.snapshot().count(&question(subject, scope)).expect("counted").total.version
    };
    let (c1, c9) = (of_campaign("c1"), of_campaign("c9"));
    assert_eq!(fixed.gross(ad("victim"), Some(&c1)), 1, "its own click it does see");
    assert_eq!([version(ad("victim"), None), version(ad("victim"), Some(&c1))], [2, 1]);
    assert_eq!(
        [version(ad("half"), None), version(ad("half"), Some(&c1))],
        [2, 1],
        "of which the catalogue knows half"
    );
    assert_eq!(
        [version(ad("told"), Some(&c9)), version(Subject::All, Some(&c9))],
        [3, 3],
        "of the catalogue's ads all"
    );
    let campaign = |id: &str| Subject::Campaign(id.to_owned());
    assert_eq!([version(campaign("c9"), Some(&c9)), version(campaign("c1"), Some(&c1))], [3, 1]);
    assert_eq!(version(Subject::All, Some(&c1)), 1);
    let both = Scope { campaigns: ["c1".to_owned(), "c9".to_owned()].into(), ..Scope::default() };
    assert_eq!([version(Subject::All, Some(&both)), version(campaign("c9"), Some(&both))], [1, 3]);
    let rows = Question { granularity: Some(Granularity::Minute), ..question(ad("victim"), Some(&c1)) };
    let rows = fixed.snapshot().count(&rows).expect("counted").rows;
    assert!(rows.iter().all(|row| row.version == 1), "{rows:?}");
}

/// With very many ads, too, versions count the corrections of these ads and no others.
#[test]
fn a_campaign_of_very_many_ads_has_its_own_versions() {
    let mut ads = "ad_id,campaign_id,advertiser_id\ntold,big,adv\nother,c2,adv2\n".to_owned();
    (0..crate::whose::LOOKED_UP_MAX).for_each(|n| ads.push_str(&format!("never clicked {n},big,adv\n")));
    let mut fixed = Fixed::filled(&ads);
    fixed.sends(START_MS + 2 * MINUTE_MS, Vec::new());
    fixed.sends(START_MS + 3 * MINUTE_MS, vec![clicks("told", "", "", START_MS, 3)]);
    for _ in 0..4 {
        fixed.sends(START_MS + 3 * MINUTE_MS, vec![clicks("other", "", "", START_MS, 3)]);
    }
    fixed.sends(START_MS + 11 * MINUTE_MS, Vec::new());
    let (scope, campaign) = (of_campaign("big"), Subject::Campaign("big".to_owned()));
    // An advertiser's token asks about a campaign that is in its scope by its ads alone.
    let of_advertiser = Scope { advertisers: ["adv".to_owned()].into(), ..Scope::default() };
    let asked = [
        (campaign.clone(), None),
        (campaign.clone(), Some(&scope)),
        (campaign, Some(&of_advertiser)),
        (Subject::All, Some(&scope)),
    ];
    for (subject, scope) in asked {
        let minutes = Question { granularity: Some(Granularity::Minute), ..question(subject, scope) };
        let counts = fixed.snapshot().count(&minutes).expect("counted");
        assert_eq!((counts.total.version, counts.rows[0].version), (2, 2), "{:?}", minutes.subject);
    }
    let everything = fixed.snapshot().count(&question(Subject::All, None)).expect("counted");
    assert_eq!(everything.total.version, 6);
}
