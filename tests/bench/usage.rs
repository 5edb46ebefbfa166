//! What processes have used: CPU time with that of their ended children, and memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Clock ticks per second in /proc/PID/stat; fixed on Linux for user space.
const TICKS: f64 = 100.0;
/// How often the memory of many processes is added up; reading it costs them time.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Fields of /proc/PID/stat after the command.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = text.rsplit(')').next()?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

/// These processes and all that descends from them.
fn family(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        // The parent is the second field after the command.
        let parent = stat(pid).and_then(|fields| fields.get(1).copied()).unwrap_or(0);
        children.entry(parent as u32).or_default().push(pid);
    }
    let mut family = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        let born = children.remove(pid).unwrap_or_default();
        family.extend(born);
        next += 1;
    }
    family
}

/// CPU seconds of the processes, their descendants, and those of them that have ended.
pub fn cpu(roots: &[u32]) -> f64 {
    let ticks = |pid: u32| -> u64 {
        // utime, stime, cutime, cstime.
        stat(pid).map_or(0, |fields| fields.iter().skip(11).take(4).sum())
    };
    family(roots).into_iter().map(ticks).sum::<u64>() as f64 / TICKS
}

fn kilobytes(path: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

/// Resident megabytes of one process now.
pub fn resident_mb(pid: u32) -> f64 {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS:") as f64 / 1024.0
}

/// Watches the memory of processes. One process: its own record of the most it ever had. Many: the
/// largest sum seen of their proportional shares, so that what they share counts once.
pub struct Memory {
    roots: Vec<u32>,
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Memory {
    pub fn watch(roots: &[u32], many: bool) -> Self {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        if many {
            let (roots, peak, stop) = (roots.to_vec(), peak.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let share = |pid| kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
                    peak.fetch_max(family(&roots).into_iter().map(share).sum(), Ordering::Relaxed);
                    std::thread::sleep(SAMPLE_EVERY);
                }
            });
        }
        Self { roots: roots.to_vec(), peak, stop }
    }

    pub fn peak_mb(&self) -> f64 {
        let seen = self.peak.load(Ordering::Relaxed);
        let own = || self.roots.iter().map(|pid| kilobytes(&format!("/proc/{pid}/status"), "VmHWM:")).sum();
        (if seen > 0 { seen } else { own() }) as f64 / 1024.0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
