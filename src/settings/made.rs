//! Pure. What settings of a kind have in common, for their table.

/// A setting that is a number in the configuration.
macro_rules! number {
    ($name:literal, $kind:expr, $($field:ident).+, $about:literal) => {
        Setting {
            name: $name,
            about: $about,
            kind: $kind,
            get: |config| Value::Number(config.$($field).+ as u64),
            set: |config, value, _| config.$($field).+ = value.number() as _,
        }
    };
}

/// A setting that is one of the names of an enum.
macro_rules! choice {
    ($name:literal, $names:expr, $enum:ident, $($field:ident).+, $about:literal) => {
        Setting {
            name: $name,
            about: $about,
            kind: Kind::Choice($names),
            get: |config| Value::Text(config.$($field).+.name().to_owned()),
            set: |config, value, _| {
                let name = value.text();
                let found = $enum::ALL.iter().copied().find(|one| one.name() == name);
                config.$($field).+ = found.expect("the choice was checked against the names of the enum");
            },
        }
    };
}

macro_rules! address {
    ($name:literal, $field:ident, $about:literal) => {
        Setting {
            name: $name,
            about: $about,
            kind: Kind::Address,
            get: |config| Value::Text(config.$field.to_string()),
            set: |config, value, _| config.$field = value.text().parse().expect("the address was checked"),
        }
    };
}

/// A text of the Kafka sink.
macro_rules! kafka {
    ($name:literal, $kind:expr, $field:ident, $about:literal) => {
        Setting {
            name: $name,
            about: $about,
            kind: $kind,
            get: |config| Value::Text(config.export.kafka.$field.clone()),
            set: |config, value, _| config.export.kafka.$field = value.text(),
        }
    };
}

pub(super) use {address, choice, kafka, number};
