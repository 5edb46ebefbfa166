//! Configuration: the only reader of configuration files and environment.
//!
//! `load` merges the layers (defaults < file < drop-in files < environment < command line),
//! `check` says what is wrong or without effect, `options` makes each module's `Options` of it.
//! Nothing below sees this module; nothing is started from a configuration with errors.
//! Called by `cli` (every verb finds the daemon's socket here) and by `daemon`.

pub mod check;
pub mod load;
pub mod options;
mod secret;
mod sections;
mod source;
pub mod value;

pub use check::{Findings, check};
pub use load::{ConfigError, DEFAULT_FILE, Loaded, Sources};
pub use options::{Doors, Settings, doors, settings};
pub use sections::{
    Admin, Auth, AuthUser, ClientCertificateSection, Config, Delivery, Dns, Dnssec, Evidence, Limits,
    Listener, ListenerAuth, ListenerTls, Log, LogFormat, MtaSts, NetworkSection, Override, Policy, Pool,
    RouteSection, Server, Timeouts, Tls, Tlsrpt,
};
pub use source::SourceAddress;
