//! Fuzzing input as a row of small decisions, read from the front. Never fails: an input that is used
//! up gives zeros and nothing.

/// See the file's header.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn flag(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let wide = usize::from(self.octet()) << 8 | usize::from(self.octet());
        wide % end
    }

    pub fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.octet()))
    }

    /// So many octets, or what is left.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Octets whose length stands in front of them, in two octets.
    pub fn long(&mut self) -> &'a [u8] {
        let length = usize::from(self.octet()) << 8 | usize::from(self.octet());
        self.take(length)
    }

    /// Octets whose length stands in front of them, in one octet.
    pub fn short(&mut self) -> &'a [u8] {
        let length = usize::from(self.octet());
        self.take(length)
    }

    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.short()).into_owned()
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.octet()) % from.len()]
    }

    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
