//! What fuzzing found stays found: replays the corpora of `tests/fuzz`, then mutations of them, on any
//! toolchain and without libFuzzer.
//!
//! The seed is new each time and told when something fails; `STSRELAY_FUZZ_SEED` repeats it, and
//! `STSRELAY_FUZZ_RUNS` is how many mutations of each target are tried.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

#[path = "fuzz/src/lib.rs"]
mod targets;

/// Mutations of each target tried unless told otherwise: some seconds in all.
const RUNS: u64 = 400;
/// Octets of a mutation at most.
const BYTES_MAX: usize = 8 << 10;
/// Changes to one input at most.
const CHANGES_MAX: u32 = 8;

thread_local! {
    /// Panics on this thread, those of its runtime's tasks included, which nobody else would see.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// The inputs of a corpus, in order of name.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpus(target);
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a readable file"))).collect()
}

fn replay(name: &str) {
    count_panics();
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "{name} has no corpus");
    for (path, input) in &inputs {
        run(*target, input, || format!("{}", path.display()));
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("STSRELAY_FUZZ_SEED").unwrap_or_else(rand::random);
    for nth in 0..number("STSRELAY_FUZZ_RUNS").unwrap_or(RUNS) {
        let mut rng = SmallRng::seed_from_u64(seed ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let input = mutation(&inputs, &mut rng);
        run(*target, &input, || {
            let file = std::env::temp_dir().join(format!("stsrelay-fuzz-{name}-{seed}-{nth}"));
            let _ = fs::write(&file, &input);
            format!("mutation {nth} of STSRELAY_FUZZ_SEED={seed}, kept as {}", file.display())
        });
    }
}

fn run(target: targets::Target, input: &[u8], which: impl Fn() -> String) {
    PANICS.with(|panics| panics.set(0));
    let caught = std::panic::catch_unwind(|| target(input));
    let panics = PANICS.with(Cell::get);
    assert!(caught.is_ok() && panics == 0, "failed on {}", which());
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            tell(info);
        }));
    });
}

/// Octets that mean something to some reader.
const WORDS: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r.\r",
    b".",
    b"..",
    b" ",
    b"\t",
    b";",
    b":",
    b"=",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"*.",
    b"xn--",
    "ä".as_bytes(),
    b"\xff",
    b"4294967296",
    b"18446744073709551616",
];

fn mutation(inputs: &[(PathBuf, Vec<u8>)], rng: &mut SmallRng) -> Vec<u8> {
    let pick = |rng: &mut SmallRng| inputs[rng.random_range(0..inputs.len())].1.clone();
    let mut input = pick(rng);
    for _ in 0..rng.random_range(1..=CHANGES_MAX) {
        let at = rng.random_range(0..=input.len());
        let to = (at + rng.random_range(0..=16)).min(input.len());
        match rng.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            1 if at < input.len() => input[at] = rng.next_u32() as u8,
            2 => drop(input.drain(at..to)),
            3 => {
                let piece: Vec<u8> = (0..rng.random_range(1..9)).map(|_| rng.next_u32() as u8).collect();
                drop(input.splice(at..at, piece));
            }
            4 => {
                let word = WORDS[rng.random_range(0..WORDS.len())];
                drop(input.splice(at..at, word.iter().copied()));
            }
            // Something twice, or often.
            5 => {
                let piece = input[at..to].repeat(rng.random_range(1..=40));
                drop(input.splice(at..at, piece));
            }
            6 => {
                let other = pick(rng);
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at.max(1)),
        }
    }
    input.truncate(BYTES_MAX);
    input
}

macro_rules! each {
    ($($target:ident),* $(,)?) => {
        $(#[test] fn $target() { replay(stringify!($target)); })*

        #[test]
        fn every_target_is_replayed_and_has_its_binary() {
            let named = [$(stringify!($target)),*];
            assert_eq!(targets::TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), named);
            let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/Cargo.toml");
            let manifest = fs::read_to_string(manifest).expect("a readable file");
            for name in named {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            }
        }
    };
}

each!(
    address,
    certificate,
    dns_reply,
    dsn,
    journal,
    policy_store,
    report_read,
    smtp_command,
    smtp_content,
    smtp_reply,
    sts_policy,
    sts_record,
    submission,
    tlsrpt_record,
);
