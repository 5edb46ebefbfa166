//! The layers of the configuration: defaults, file, drop-in files, environment, command line.
//!
//! The only reader of configuration files and environment variables. Each layer is checked by
//! itself before it is merged, so that an error names the file it is in. A later layer replaces
//! single keys; arrays are replaced as a whole.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use figment::error::{Error as FigmentError, Kind};
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Config;
use crate::delivery::static_route::{HopTls, NextHopName, RouteFor};

/// Read when no `--config` is given, if it is there.
pub const DEFAULT_FILE: &str = "/etc/stsrelay/stsrelay.toml";
/// Variables `STSRELAY_SECTION__KEY` are configuration; without `__` they are not ours.
pub const ENVIRONMENT_PREFIX: &str = "STSRELAY_";
/// No configuration file of a mail relay is larger; guards against `--config /dev/zero`.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`; without it [`DEFAULT_FILE`], if it is there.
    pub file: Option<PathBuf>,
    /// The process's environment, or a test's.
    pub environment: Vec<(String, String)>,
    /// `--set section.key=value`, in order.
    pub set: Vec<String>,
}

/// A configuration with the origin of each value.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    /// The main file, whether it exists or not.
    pub file: PathBuf,
    figment: Figment,
}

/// Something wrong with the configuration. Shows itself as one line: where, which key, what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {}{text}", Prefix(key))]
pub struct ConfigError {
    /// The file, environment variable or command line it was read from.
    pub place: String,
    /// The dotted key; empty when the trouble is not with one key.
    pub key: String,
    /// What is wrong and what would be right.
    pub text: String,
}

struct Prefix<'a>(&'a str);
impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// One layer above the defaults.
#[derive(Clone)]
struct Layer {
    place: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.place.clone())
    }
    fn data(&self) -> Result<Map<Profile, Dict>, FigmentError> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Sources {
    /// `file` and the process's environment.
    pub fn of_process(file: Option<PathBuf>, set: Vec<String>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, environment, set }
    }

    /// Reads and merges all layers. What cannot be seen from shapes is left to `check`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let file = self.file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let mut layers = Vec::new();
        if self.file.is_some() || file.exists() {
            layers.push(file_layer(&file)?);
        }
        for drop_in in drop_ins(&file)? {
            layers.push(file_layer(&drop_in)?);
        }
        for (name, value) in &self.environment {
            layers.extend(environment_layer(name, value));
        }
        for set in &self.set {
            layers.push(command_line_layer(set)?);
        }

        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        for layer in layers {
            Figment::from(layer.clone()).extract::<Config>().map_err(|error| explain(error, &layer.place))?;
            figment = figment.merge(layer);
        }
        let config = figment.extract().map_err(|error| explain(error, &file.display().to_string()))?;
        Ok(Loaded { config, file, figment })
    }
}

impl Loaded {
    /// Where the value of a key came from; `None`: it is the default.
    pub fn origin(&self, key: &str) -> Option<String> {
        // An array has one origin: layers replace it as a whole.
        let metadata = self.figment.find_metadata(key.split('[').next().unwrap_or(key))?;
        // The defaults are the only layer with a place in our code.
        (!matches!(metadata.source, Some(figment::Source::Code(_))))
            .then(|| metadata.name.clone().into_owned())
    }

    /// Where to look for a key: the place of its value, or the main file while it has its default.
    pub fn place(&self, key: &str) -> String {
        self.origin(key).unwrap_or_else(|| self.file.display().to_string())
    }

    /// An error about `key`, placed where its value came from.
    pub fn error(&self, key: &str, text: impl Into<String>) -> ConfigError {
        ConfigError { place: self.place(key), key: key.to_owned(), text: text.into() }
    }
}

fn file_layer(path: &Path) -> Result<Layer, ConfigError> {
    let place = path.display().to_string();
    let failed = |text: String| ConfigError { place: place.clone(), key: String::new(), text };
    let metadata = fs::metadata(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(failed("is not a configuration file".to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let values = Toml::from_str(&text).map_err(|error| failed(one_line(&error.to_string())))?;
    Ok(Layer { place, values })
}

/// `stsrelay.d/*.toml` beside `stsrelay.toml`, in order of name.
fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = file.with_extension("d");
    let failed = |error: std::io::Error| ConfigError {
        place: folder.display().to_string(),
        key: String::new(),
        text: format!("cannot be read: {error}"),
    };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn environment_layer(name: &str, value: &str) -> Option<Layer> {
    let rest = name.strip_prefix(ENVIRONMENT_PREFIX)?;
    // Service managers inject variables such as STSRELAY_PORT; ours have a section.
    let (section, key) = rest.split_once("__")?;
    let key = format!("{section}__{key}").to_ascii_lowercase().replace("__", ".");
    Some(text_layer(format!("environment variable {name}"), &key, value))
}

fn command_line_layer(set: &str) -> Result<Layer, ConfigError> {
    let place = "command line".to_owned();
    match set.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok(text_layer(place, key.trim(), value.trim())),
        _ => Err(ConfigError {
            place,
            key: set.to_owned(),
            text: "is not of the form section.key=value".to_owned(),
        }),
    }
}

/// A value given as text is a number, a boolean or an array where that fits, and text otherwise.
fn text_layer(place: String, key: &str, text: &str) -> Layer {
    let layer = |value: Value| {
        let values = figment::util::nest(key, value).into_dict().unwrap_or_default();
        Layer { place: place.clone(), values }
    };
    let typed = layer(text.parse().unwrap_or_else(|never| match never {}));
    let plain = layer(Value::from(text));
    let fits = |layer: &Layer| Figment::from(layer.clone()).extract::<Config>().is_ok();
    if !fits(&typed) && fits(&plain) { plain } else { typed }
}

/// A TOML error shows the line it is about; ours is one line.
fn one_line(text: &str) -> String {
    let mut parts = text.lines().filter(|line| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with(|c: char| c == '|' || c.is_ascii_digit())
    });
    let first = parts.next().unwrap_or("not TOML").to_owned();
    parts.fold(first, |line, part| format!("{line}: {}", part.trim()))
}

fn explain(error: FigmentError, place: &str) -> ConfigError {
    let mut path = error.path.clone();
    let text = match &error.kind {
        Kind::UnknownField(field, _) => {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            format!("unknown key; the nearest known key is {:?}", nearest(&path))
        }
        Kind::MissingField(field) => {
            path.push(field.clone().into_owned());
            "is missing".to_owned()
        }
        Kind::UnknownVariant(found, expected) => {
            format!("{found:?} is none of {}", expected.join(", "))
        }
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("found {found}, expected {expected}")
        }
        other => one_line(&other.to_string()),
    };
    ConfigError { place: place.to_owned(), key: dotted(&path), text }
}

/// `listener.0.tls` as people write it: `listener[0].tls`.
fn dotted(path: &[String]) -> String {
    path.iter().fold(String::new(), |mut key, part| {
        if part.bytes().all(|b| b.is_ascii_digit()) {
            key.push_str(&format!("[{part}]"));
        } else {
            if !key.is_empty() {
                key.push('.');
            }
            key.push_str(part);
        }
        key
    })
}

/// The known key most like an unknown one. A key of that very name in another section comes first,
/// then the keys of the same section, then all others.
fn nearest(path: &[String]) -> String {
    let path: Vec<&str> =
        path.iter().map(String::as_str).filter(|part| !part.bytes().all(|b| b.is_ascii_digit())).collect();
    let unknown = path.join(".");
    let (parent, leaf) = unknown.rsplit_once('.').unwrap_or(("", &unknown));
    let likeness = |known: &str| {
        let (known_parent, known_leaf) = known.rsplit_once('.').unwrap_or(("", known));
        let whole = strsim::normalized_damerau_levenshtein(&unknown, known);
        let part = strsim::normalized_damerau_levenshtein(leaf, known_leaf);
        let same_name = if leaf == known_leaf { 0.5 } else { 0.0 };
        if parent == known_parent { part.max(whole) + same_name } else { whole.max(part * 0.8) + same_name }
    };
    let mut best = (f64::MIN, String::new());
    for known in known_keys() {
        let likeness = likeness(&known);
        if likeness > best.0 {
            best = (likeness, known);
        }
    }
    best.1
}

/// All keys, sections included, arrays without their index: `server`, `server.hostname`,
/// `listener.name`, ...
pub fn known_keys() -> Vec<String> {
    let mut example = Config::default();
    example.policy.r#override.push(super::Override {
        domain: None,
        mx: None,
        require: crate::tlspolicy::LocalRule::None,
        until: None,
        reason: String::new(),
    });
    example.route.push(super::RouteSection {
        domain: RouteFor::All,
        next_hop: NextHopName::Direct,
        tls: HopTls::default(),
        require: None,
        username: None,
        password_file: None,
    });
    example.delivery.destination.push(super::sections::DestinationSection::default());
    example.auth.user.push(super::AuthUser {
        name: String::new(),
        senders: Vec::new(),
        check_from: false,
        messages_per_hour: None,
        recipients_per_hour: None,
        message_size: None,
        connections: None,
    });
    example.auth.client_certificate.push(super::ClientCertificateSection {
        name: String::new(),
        sha256: Vec::new(),
        subject_names: Vec::new(),
    });
    let mut keys = Vec::new();
    collect(&serde_json::to_value(example).unwrap_or_default(), "", &mut keys);
    keys
}

fn collect(value: &serde_json::Value, prefix: &str, keys: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                keys.push(key.clone());
                collect(value, &key, keys);
            }
        }
        // Tables of an array share their keys; arrays of values have none.
        serde_json::Value::Array(items) => {
            if let Some(first) = items.first() {
                collect(first, prefix, keys);
            }
        }
        _ => {}
    }
}

/// The leaves of a configuration in its order, arrays of tables with an index: what `config show`
/// prints.
pub fn leaves(config: &Config) -> Vec<(String, serde_json::Value)> {
    fn walk(value: serde_json::Value, key: String, leaves: &mut Vec<(String, serde_json::Value)>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    walk(value, if key.is_empty() { name } else { format!("{key}.{name}") }, leaves);
                }
            }
            serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_object) => {
                for (index, item) in items.into_iter().enumerate() {
                    walk(item, format!("{key}[{index}]"), leaves);
                }
            }
            other => leaves.push((key, other)),
        }
    }
    let mut leaves = Vec::new();
    walk(serde_json::to_value(config).unwrap_or_default(), String::new(), &mut leaves);
    leaves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str]) -> Result<Loaded, ConfigError> {
        // A file that is not there, given implicitly, would be the machine's own: use an empty one.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stsrelay.toml");
        fs::write(&file, "").unwrap();
        let set = values.iter().map(|&v| v.to_owned()).collect();
        Sources { file: Some(file), environment: Vec::new(), set }.load()
    }

    #[test]
    fn mistyped_keys_name_the_nearest_one() {
        for (given, nearest) in [
            ("tlsrpt.form=a@b.example", "tlsrpt.from"),
            ("server.hostnam=a.example", "server.hostname"),
            ("hostname.x=1", "server.hostname"),
            ("delivery.timeouts.greting=1s", "delivery.timeouts.greeting"),
            ("policy.mtasts=true", "policy.mta_sts"),
            ("tlsrtp.from=a@b.example", "tlsrpt"),
            ("delivery.recipients=5", "limits.recipients"),
        ] {
            let error = set(&[given]).unwrap_err().to_string();
            assert!(error.starts_with("command line: "), "{error}");
            assert!(error.ends_with(&format!("the nearest known key is {nearest:?}")), "{given}: {error}");
        }
    }

    #[test]
    fn texts_that_look_like_numbers_stay_texts_where_a_text_is_wanted() {
        let loaded = set(&["tlsrpt.dkim_selector=2024", "delivery.smtp_port=2526"]).unwrap();
        assert_eq!(loaded.config.tlsrpt.dkim_selector.as_deref(), Some("2024"));
        assert_eq!(loaded.config.delivery.smtp_port, 2526);
        assert_eq!(loaded.origin("delivery.smtp_port").as_deref(), Some("command line"));
        assert_eq!(loaded.origin("delivery.concurrency"), None);
        assert_eq!(loaded.place("delivery.concurrency"), loaded.file.display().to_string());
    }
}
