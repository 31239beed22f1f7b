//! Numbers that look random and come again from the same seed.

/// A xorshift generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // The generator must not start at zero, and small seeds should not look alike.
        Self(
            (seed ^ 0x9e37_79b9_7f4a_7c15)
                .max(1)
                .wrapping_mul(0x2545_f491_4f6c_dd1d),
        )
    }

    /// Uniform below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}
