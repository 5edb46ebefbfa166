//! Finds the reports in octets of any kind: JSON, gzip, zip, a mail, an mbox, and one in another.
//!
//! Looks at the octets, not at names and types: those are wrong often enough, and then told as
//! deviations. Bounded: depth, octets unpacked of one file, entries. Called by `cli::report::read`.

use std::collections::BTreeSet;
use std::io::Read as _;

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use rawzip::{CompressionMethod, ZipArchive};

use super::json::{self, JsonError};
use super::{Deviation, ReadReport, mbox, mime};

/// Octets of one mail read; a report of [`json::JSON_BYTES_MAX`] in base64 fits in.
pub const MAIL_BYTES_MAX: usize = 24 << 20;
/// Octets that one file may unpack to, all layers and entries together: gzip makes 1000 of one.
pub const UNPACKED_BYTES_MAX: usize = 64 << 20;
/// Layers of packing followed; a zip of mails with gzip within has three.
const DEPTH_MAX: usize = 5;
/// Entries of one zip file looked at.
const ENTRIES_MAX: usize = 10_000;

/// What was found in a file.
#[derive(Debug)]
pub struct Found {
    /// Where within the file, e.g. `message 3`; empty for the file itself.
    pub place: String,
    /// The report, or what keeps it from being read: one sentence.
    pub report: Result<ReadReport, String>,
}

/// Calls `sink` with every report in `bytes`, and with what claims to be one and is not. `name` is
/// the file's, `asked` whether it was named for holding a report: then nothing is passed over in
/// silence.
pub fn unpack(bytes: &[u8], name: Option<&str>, asked: bool, sink: &mut dyn FnMut(Found)) {
    let mut unpacker = Unpacker { left: UNPACKED_BYTES_MAX, sink };
    let what = What { kind: None, name, asked, notes: BTreeSet::new(), is_leaf: false };
    unpacker.any(bytes, &what, "", 0);
}

/// What is known of octets beside themselves.
#[derive(Clone)]
struct What<'a> {
    /// The media type, of a part of a mail.
    kind: Option<&'a str>,
    name: Option<&'a str>,
    asked: bool,
    notes: BTreeSet<Deviation>,
    /// Part of a mail: not taken for a mail itself.
    is_leaf: bool,
}

impl What<'_> {
    /// Whether it says itself to be a report.
    fn claims(&self) -> bool {
        let by_kind = self.kind.is_some_and(|kind| kind.contains("tlsrpt"));
        // RFC 8460 §5.1: sender!domain!begin!end.
        let by_name = self.name.is_some_and(|name| name.matches('!').count() >= 3) && self.is_named_json();
        self.asked || by_kind || by_name
    }

    /// Whether it should be readable at least: a file by the name of JSON, whatever it is about.
    fn promises(&self) -> bool {
        self.claims() || (!self.is_leaf && self.is_named_json())
    }

    fn is_named_json(&self) -> bool {
        self.name.is_some_and(|name| {
            let name = name.to_ascii_lowercase();
            name.ends_with(".json") || name.ends_with(".json.gz")
        })
    }

    /// Notes where type and name do not fit the encoding.
    fn fits(&mut self, gzip: bool) {
        let wanted = if gzip { "application/tlsrpt+gzip" } else { "application/tlsrpt+json" };
        if self.kind.is_some_and(|kind| kind != wanted) {
            self.notes.insert(Deviation::ContentType);
        }
        let wanted = if gzip { ".json.gz" } else { ".json" };
        if self.name.is_some_and(|name| !name.to_ascii_lowercase().ends_with(wanted)) {
            self.notes.insert(Deviation::FileName);
        }
    }
}

struct Unpacker<'s> {
    left: usize,
    sink: &'s mut dyn FnMut(Found),
}

impl Unpacker<'_> {
    fn trouble(&mut self, place: &str, text: impl Into<String>) {
        (self.sink)(Found { place: place.to_owned(), report: Err(text.into()) });
    }

    fn any(&mut self, bytes: &[u8], what: &What<'_>, place: &str, depth: usize) {
        if depth > DEPTH_MAX {
            return self.trouble(place, "packed too many times over");
        }
        if bytes.starts_with(&[0x1f, 0x8b]) {
            self.gzip(bytes, what, place, depth);
        } else if bytes.starts_with(b"PK\x03\x04") {
            self.zip(bytes, what, place, depth);
        } else if json::looks_like_json(bytes) {
            let mut what = what.clone();
            // Within gzip that was looked at already.
            if depth == 0 || what.is_leaf {
                what.fits(false);
            }
            self.json(bytes, &what, place);
        } else if what.is_leaf && !what.name.is_some_and(|name| name.to_ascii_lowercase().ends_with(".eml")) {
            if what.claims() {
                self.trouble(place, "neither gzip nor JSON");
            }
        } else if mbox::looks_like_mbox(bytes) {
            self.mbox(bytes, what, place, depth);
        } else if mime::looks_like_mail(bytes) {
            self.mail(bytes, what, place, depth);
        } else if what.promises() {
            self.trouble(place, "no TLS report: neither JSON, gzip, zip, mail nor mbox");
        }
    }

    fn json(&mut self, bytes: &[u8], what: &What<'_>, place: &str) {
        match json::parse(bytes) {
            Ok(reports) => {
                for mut report in reports {
                    report.deviations.extend(&what.notes);
                    (self.sink)(Found { place: place.to_owned(), report: Ok(report) });
                }
            }
            Err(error @ JsonError::TooLarge) => self.trouble(place, error.to_string()),
            Err(error @ JsonError::NotJson(_)) if what.promises() => self.trouble(place, error.to_string()),
            Err(error @ JsonError::NotReport) if what.claims() => self.trouble(place, error.to_string()),
            // Somebody else's attachment.
            Err(_) => {}
        }
    }

    fn gzip(&mut self, bytes: &[u8], what: &What<'_>, place: &str, depth: usize) {
        let mut inner = what.clone();
        if depth == 0 || what.is_leaf {
            inner.fits(true);
        }
        (inner.kind, inner.is_leaf) = (None, false);
        let was_promised = what.promises();
        let mut decoder = MultiGzDecoder::new(bytes);
        let (unpacked, error) = match self.read(&mut decoder, place) {
            Some(read) => read,
            None => return,
        };
        if let Some(error) = error {
            if unpacked.is_empty() || json::parse(&unpacked).is_err() {
                if was_promised {
                    self.trouble(place, format!("the gzip file is damaged: {error}"));
                }
                return;
            }
            inner.notes.insert(Deviation::GzipDamaged);
        }
        inner.asked = what.claims();
        if !json::looks_like_json(&unpacked) {
            // A packed mail or mbox has no name to be judged by.
            inner.notes.clear();
        }
        inner.name = was_promised.then_some("unpacked.json");
        self.any(&unpacked, &inner, place, depth + 1);
    }

    /// Reads to the end within the bounds; `None` when they are passed, which is told.
    fn read(
        &mut self,
        reader: &mut dyn std::io::Read,
        place: &str,
    ) -> Option<(Vec<u8>, Option<std::io::Error>)> {
        let mut unpacked = Vec::new();
        let read = reader.take(self.left as u64 + 1).read_to_end(&mut unpacked);
        if unpacked.len() > self.left {
            self.left = 0;
            let text = format!("unpacks to more than {} MB; not read", UNPACKED_BYTES_MAX >> 20);
            self.trouble(place, text);
            return None;
        }
        self.left -= unpacked.len();
        Some((unpacked, read.err()))
    }

    fn zip(&mut self, bytes: &[u8], what: &What<'_>, place: &str, depth: usize) {
        let archive = match ZipArchive::from_slice(bytes) {
            Ok(archive) => archive,
            Err(error) if what.claims() => {
                return self.trouble(place, format!("the zip file is damaged: {error}"));
            }
            Err(_) => return,
        };
        let mut entries = archive.entries();
        for number in 1.. {
            let entry = match entries.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return,
                Err(error) => return self.trouble(place, format!("the zip file is damaged: {error}")),
            };
            if number > ENTRIES_MAX {
                return self.trouble(place, "more than 10000 entries; the others were not read");
            }
            if entry.is_dir() {
                continue;
            }
            let path = entry.file_path();
            let name = String::from_utf8_lossy(path.as_ref()).into_owned();
            let place = joined(place, &format!("entry {}", super::clean(&name)));
            let data = match archive.get_entry(entry.wayfinder()) {
                Ok(found) => found.data(),
                Err(error) => {
                    self.trouble(&place, format!("the zip file is damaged: {error}"));
                    continue;
                }
            };
            let read = match entry.compression_method() {
                CompressionMethod::STORE => self.read(&mut { data }, &place),
                CompressionMethod::DEFLATE => self.read(&mut DeflateDecoder::new(data), &place),
                _ => {
                    self.trouble(&place, "packed in a way that is not understood");
                    continue;
                }
            };
            let Some((unpacked, error)) = read else { return };
            if let Some(error) = error {
                self.trouble(&place, format!("the zip file is damaged: {error}"));
                continue;
            }
            let name = name.rsplit('/').next();
            let inner = What { kind: None, name, asked: false, notes: BTreeSet::new(), is_leaf: false };
            self.any(&unpacked, &inner, &place, depth + 1);
        }
    }

    fn mbox(&mut self, bytes: &[u8], what: &What<'_>, place: &str, depth: usize) {
        let (mut reader, mut number) = (bytes, 0);
        let outcome = mbox::messages(&mut reader, MAIL_BYTES_MAX, |message| {
            number += 1;
            let place = joined(place, &format!("message {number}"));
            match message {
                Some(message) => {
                    let what = What { asked: false, ..what.clone() };
                    self.mail(message, &what, &place, depth);
                }
                None => self.trouble(&place, too_large()),
            }
        });
        debug_assert!(outcome.is_ok(), "a slice can be read");
    }

    fn mail(&mut self, bytes: &[u8], what: &What<'_>, place: &str, depth: usize) {
        if bytes.len() > MAIL_BYTES_MAX {
            return self.trouble(place, too_large());
        }
        let (leaves, trouble) = mime::leaves(bytes);
        let mut found = false;
        for leaf in &leaves {
            let (kind, name) = (Some(&leaf.kind[..]), leaf.name.as_deref());
            let inner = What { kind, name, asked: false, notes: BTreeSet::new(), is_leaf: true };
            found |= inner.claims();
            self.any(&leaf.body, &inner, place, depth + 1);
        }
        if let Some(trouble) = trouble
            && (found || what.asked)
        {
            self.trouble(place, trouble);
        }
    }
}

fn too_large() -> String {
    format!("the mail is larger than {} MB; not read", MAIL_BYTES_MAX >> 20)
}

fn joined(place: &str, further: &str) -> String {
    if place.is_empty() { further.to_owned() } else { format!("{place}, {further}") }
}
