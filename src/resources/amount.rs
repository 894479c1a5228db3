//! `Amount`: how much of a counted resource, in ten-thousandths, so that sums are exact.

use std::fmt;

use serde::{Serialize, Serializer};

use super::fraction::{Given, WHOLE};

/// The most of one resource that can be asked for or be there.
pub const AMOUNT_MAX: u32 = 1_000_000;

/// An amount of CPUs or of a custom resource; may be 0, and above 1 need not be whole.
///
/// ```
/// use greenroom::{Amount, AmountError};
/// assert_eq!(Amount::parse(0.1)?.ten_thousandths() * 3, Amount::parse(0.3)?.ten_thousandths());
/// assert_eq!(Amount::parse(-1.0), Err(AmountError::Negative(-1.0)));
/// # Ok::<(), AmountError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u64);

/// Why a number is no amount.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AmountError {
    /// Not a number, or infinite.
    #[error("{0} was given; allowed: a number from 0 to {AMOUNT_MAX}")]
    NotFinite(f64),
    /// Below 0.
    #[error("{} was given; nobody can ask for less than 0", Given(*.0))]
    Negative(f64),
    /// More precise than ten-thousandths.
    #[error("{} was given; it has more than four decimals, 0.0001 is the smallest step", Given(*.0))]
    TooFine(f64),
    /// More than [`AMOUNT_MAX`].
    #[error("{} was given; at most {AMOUNT_MAX} is allowed", Given(*.0))]
    TooMany(f64),
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(WHOLE as u64);

    /// Takes a number as people write it.
    ///
    /// # Errors
    /// [`AmountError`] when it is not finite, negative, above [`AMOUNT_MAX`], or not a multiple of 0.0001.
    pub fn parse(value: f64) -> Result<Self, AmountError> {
        if !value.is_finite() {
            return Err(AmountError::NotFinite(value));
        }
        if value < 0.0 {
            return Err(AmountError::Negative(value));
        }
        if value > f64::from(AMOUNT_MAX) {
            return Err(AmountError::TooMany(value));
        }
        let parts = value * f64::from(WHOLE);
        // What a decimal loses on its way through binary is far below this: at most 1e-6 for the largest.
        if (parts - parts.round()).abs() > 1e-5 {
            return Err(AmountError::TooFine(value));
        }
        Ok(Self(parts.round() as u64))
    }

    /// A whole number.
    pub fn whole(count: u32) -> Self {
        Self(u64::from(count) * u64::from(WHOLE))
    }

    /// The amount in ten-thousandths.
    pub fn ten_thousandths(self) -> u64 {
        self.0
    }

    /// This many ten-thousandths.
    pub(super) fn of_parts(parts: u64) -> Self {
        Self(parts)
    }

    /// Whole ones in it.
    pub(crate) fn floor(self) -> u64 {
        self.0 / u64::from(WHOLE)
    }

    /// For reports; sums are made of [`Amount::ten_thousandths`].
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / f64::from(WHOLE)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_amount_is_refused_with_its_reason() {
        let why = |value: f64| Amount::parse(value).unwrap_err().to_string();
        assert_eq!(why(f64::NAN), "NaN was given; allowed: a number from 0 to 1000000");
        assert_eq!(why(f64::INFINITY), "inf was given; allowed: a number from 0 to 1000000");
        assert_eq!(why(-0.5), "-0.5 was given; nobody can ask for less than 0");
        assert!(why(0.00001).contains("more than four decimals"));
        assert!(why(1.0 / 3.0).contains("more than four decimals"));
        assert_eq!(why(1_000_001.0), "1000001 was given; at most 1000000 is allowed");
        assert_eq!(Amount::parse(-0.0), Ok(Amount::ZERO));
    }

    proptest! {
        #[test]
        fn every_ten_thousandth_survives_a_float(parts in 0..=u64::from(AMOUNT_MAX) * u64::from(WHOLE)) {
            let amount = Amount::of_parts(parts);
            prop_assert_eq!(Amount::parse(amount.as_f64()), Ok(amount));
            prop_assert_eq!(amount.to_string().parse::<f64>().unwrap(), amount.as_f64());
        }
    }
}
