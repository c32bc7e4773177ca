//! Pure. What /metrics says, by name.

use std::collections::BTreeMap;

/// Samples by name and labels as they stand in the text.
#[derive(Debug, Default)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Lines that are no samples are passed over.
    pub fn read(text: &str) -> Scrape {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            Some((sample.to_owned(), value.parse().ok()?))
        });
        Scrape(samples.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum over a family's samples; none where there are none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> = self.family(name).map(|(_, value)| value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// As `sum`, and 0 where there are none.
    pub fn value(&self, name: &str) -> f64 {
        self.sum(name).unwrap_or(0.0)
    }

    /// Each value of a label and its sample. No value of ours has a quote in it.
    pub fn by_label<'a>(&'a self, name: &'a str, label: &str) -> impl Iterator<Item = (&'a str, f64)> {
        let start = format!("{label}=\"");
        self.family(name).filter_map(move |(labels, value)| {
            let from = labels.find(&start)? + start.len();
            Some((labels[from..].split('"').next()?, value))
        })
    }

    fn family<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let after = self.0.range(name.to_owned()..).take_while(move |(sample, _)| sample.starts_with(name));
        after.filter_map(move |(sample, value)| {
            let labels = &sample[name.len()..];
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_whole_names() {
        let scrape =
            Scrape::read("# HELP a b\n# TYPE a gauge\na 1\na_b 5\na{x=\"p\"} 2.5\na{y=\"1\",x=\"q\"} 3\nnonsense\n");
        assert_eq!((scrape.sum("a"), scrape.sum("a_b"), scrape.sum("b")), (Some(6.5), Some(5.0), None));
        assert_eq!(scrape.by_label("a", "x").collect::<Vec<_>>(), [("p", 2.5), ("q", 3.0)]);
        assert!(Scrape::read("<html>").is_empty());
    }
}
