//! What a closed segment of the evidence log holds, in short: a Bloom filter over what attempts are
//! looked up by, and from when to when they are.
//!
//! Lets a search pass over segments. Says "perhaps" once in a hundred times for what is not there,
//! and never "no" for what is. A lost or damaged one is made anew from its segment. Pure.

/// Bits per key: one wrong "perhaps" in a hundred.
const BITS_PER_KEY: u64 = 10;
/// Bits set per key; the best number for so many bits.
const PROBES: u64 = 7;
const MAGIC: &[u8; 16] = b"stsrelay evfiltr";
const HEAD: usize = 40;
/// Three per attempt; a filter for more keys than any segment can hold is damaged.
const BITS_MAX: u64 = 1 << 30;

/// See the file's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub span: Span,
    bits: Vec<u8>,
}

/// From when to when the attempts of a segment are, in microseconds, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub first: i64,
    pub last: i64,
    pub attempts: u32,
}

impl Default for Span {
    fn default() -> Self {
        Self { first: i64::MAX, last: i64::MIN, attempts: 0 }
    }
}

impl Span {
    pub(super) fn add(&mut self, at: i64) {
        self.first = self.first.min(at);
        self.last = self.last.max(at);
        self.attempts = self.attempts.saturating_add(1);
    }
}

impl Filter {
    pub(super) fn of(keys: &[u64], span: Span) -> Self {
        let bits = (keys.len() as u64 * BITS_PER_KEY).clamp(64, BITS_MAX).next_multiple_of(8);
        let mut filter = Self { span, bits: vec![0; (bits / 8) as usize] };
        for key in keys {
            for bit in probes(*key, bits) {
                filter.bits[(bit / 8) as usize] |= 1 << (bit % 8);
            }
        }
        filter
    }

    /// Whether it may be there.
    pub(super) fn may_hold(&self, key: u64) -> bool {
        let set = |bit: u64| self.bits.get((bit / 8) as usize).is_some_and(|byte| byte & 1 << (bit % 8) != 0);
        probes(key, self.bits.len() as u64 * 8).all(set)
    }

    pub(super) fn render(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.bits.len() + 4);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.span.first.to_le_bytes());
        out.extend_from_slice(&self.span.last.to_le_bytes());
        out.extend_from_slice(&self.span.attempts.to_le_bytes());
        out.extend_from_slice(&(self.bits.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.bits);
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// `None` when it is damaged.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (content, sum) = bytes.split_last_chunk::<4>()?;
        (content.starts_with(MAGIC) && crc32fast::hash(content) == u32::from_le_bytes(*sum)).then_some(())?;
        let first = i64::from_le_bytes(content.get(16..24)?.try_into().ok()?);
        let last = i64::from_le_bytes(content.get(24..32)?.try_into().ok()?);
        let attempts = u32::from_le_bytes(content.get(32..36)?.try_into().ok()?);
        let len = u32::from_le_bytes(content.get(36..40)?.try_into().ok()?) as usize;
        let bits = content.get(HEAD..)?;
        (bits.len() == len && len > 0)
            .then(|| Self { span: Span { first, last, attempts }, bits: bits.to_vec() })
    }
}

/// Where a key's bits are.
fn probes(key: u64, bits: u64) -> impl Iterator<Item = u64> {
    // Both halves mixed, so that neighbouring numbers are far apart.
    let mut mixed = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let (begin, step) = (mixed & 0xffff_ffff, mixed >> 32 | 1);
    (0..PROBES).map(move |probe| begin.wrapping_add(probe.wrapping_mul(step)) % bits.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_always_found_and_what_is_not_hardly_ever() {
        let keys: Vec<u64> = (0..30_000).collect();
        let mut span = Span::default();
        [5, 3, 9].into_iter().for_each(|at| span.add(at));
        let filter = Filter::of(&keys, span);
        let read = Filter::parse(&filter.render()).unwrap();
        assert_eq!(read, filter);
        assert_eq!((read.span.first, read.span.last, read.span.attempts), (3, 9, 3));
        assert!(keys.iter().all(|key| read.may_hold(*key)));
        let wrong = (100_000..200_000).filter(|key| read.may_hold(*key)).count();
        assert!(wrong < 2_000, "{wrong} of 100000");
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let good = Filter::of(&[1, 2, 3], Span::default()).render();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(Filter::parse(&bad), None, "octet {at}");
            assert_eq!(Filter::parse(&good[..at]), None, "cut at {at}");
        }
    }
}
