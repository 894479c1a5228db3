//! Exact shares: ten-thousandths of a device, so that sums are whole numbers and never drift.

use std::{fmt, num::NonZeroU32};

/// Parts of a whole: 1 is this many ten-thousandths.
pub(crate) const WHOLE: u32 = 10_000;

/// Most whole devices that one fraction may ask for.
pub const WHOLE_DEVICES_MAX: u32 = 64;

const ONE_PARTS: NonZeroU32 = NonZeroU32::new(WHOLE).unwrap();

/// A share of a device in ten-thousandths, or a whole number of devices; never 0.
///
/// ```
/// use greenroom::{Fraction, FractionError};
/// let half = Fraction::parse(0.5)?.expect("not 0");
/// assert_eq!(half.ten_thousandths(), 5_000);
/// assert_eq!(Fraction::parse(0.0)?, None, "0 asks for no device");
/// assert_eq!(Fraction::parse(1.5), Err(FractionError::NotWhole(1.5)));
/// # Ok::<(), FractionError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fraction(NonZeroU32);

/// Why a number is no fraction of a device.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FractionError {
    /// Not a number, or infinite.
    #[error("{0} is no share of a device; allowed: 0, 0.0001 to 1, or a whole number of devices")]
    NotFinite(f64),
    /// Below 0.
    #[error("{} is negative; a share of a device is 0 (none) or more", Given(*.0))]
    Negative(f64),
    /// Above 1 and not whole.
    #[error("{} is above 1 and not whole; ask for a part of one device or for whole devices", Given(*.0))]
    NotWhole(f64),
    /// More precise than ten-thousandths.
    #[error("{} is finer than 0.0001, the smallest share and the smallest step", Given(*.0))]
    TooFine(f64),
    /// More whole devices than [`WHOLE_DEVICES_MAX`].
    #[error("{} devices are more than {WHOLE_DEVICES_MAX}, the most one lease can have", Given(*.0))]
    TooMany(f64),
}

/// A number as people write it, also one of hundreds of digits.
pub(super) struct Given(pub(super) f64);

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.0 == 0.0 || (1e-9..1e16).contains(&self.0.abs());
        if short { fmt::Display::fmt(&self.0, f) } else { fmt::LowerExp::fmt(&self.0, f) }
    }
}

impl Fraction {
    /// All of one device.
    pub const ONE: Self = Self(ONE_PARTS);

    /// Takes a number as people write it; `None` for 0, which asks for no device.
    ///
    /// # Errors
    /// [`FractionError`] when it is not finite, negative, above 1 and not whole, above [`WHOLE_DEVICES_MAX`],
    /// or not a multiple of 0.0001.
    pub fn parse(value: f64) -> Result<Option<Self>, FractionError> {
        if !value.is_finite() {
            return Err(FractionError::NotFinite(value));
        }
        if value < 0.0 {
            return Err(FractionError::Negative(value));
        }
        if value > f64::from(WHOLE_DEVICES_MAX) {
            return Err(FractionError::TooMany(value));
        }
        let parts = value * f64::from(WHOLE);
        let nearest = parts.round();
        // What a decimal loses on its way through binary is far below this.
        let exact = (parts - nearest).abs() <= 1e-6;
        if value > 1.0 && !(exact && (nearest as u32).is_multiple_of(WHOLE)) {
            return Err(FractionError::NotWhole(value));
        }
        if !exact || (nearest == 0.0 && value > 0.0) {
            return Err(FractionError::TooFine(value));
        }
        Ok(NonZeroU32::new(nearest as u32).map(Self))
    }

    /// This many ten-thousandths; `None` for 0 and for what [`Fraction::parse`] refuses.
    pub fn from_ten_thousandths(parts: u32) -> Option<Self> {
        let allowed = parts <= WHOLE || (parts.is_multiple_of(WHOLE) && parts / WHOLE <= WHOLE_DEVICES_MAX);
        NonZeroU32::new(parts).filter(|_| allowed).map(Self)
    }

    /// The share in ten-thousandths of one device.
    pub fn ten_thousandths(self) -> u32 {
        self.0.get()
    }

    /// How many whole devices, or `None` for a part of one.
    pub fn whole_devices(self) -> Option<u32> {
        (self.0.get() >= WHOLE).then(|| self.0.get() / WHOLE)
    }

    /// This part of `amount`, rounded down; all of it from 1 on.
    pub fn of(self, amount: u64) -> u64 {
        let part = u128::from(amount) * u128::from(self.0.get().min(WHOLE)) / u128::from(WHOLE);
        u64::try_from(part).unwrap_or(amount)
    }

    /// For reports; sums are made of [`Fraction::ten_thousandths`].
    pub fn as_f64(self) -> f64 {
        f64::from(self.0.get()) / f64::from(WHOLE)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

impl fmt::Debug for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(value: f64) -> u32 {
        Fraction::parse(value).unwrap().unwrap().ten_thousandths()
    }

    #[test]
    fn what_people_write_becomes_exact_parts() {
        let cases = [
            (0.1, 1000),
            (0.3, 3000),
            (0.7, 7000),
            (0.0001, 1),
            (0.3333, 3333),
            (1.0, 10_000),
            (3.0, 30_000),
        ];
        for (value, expected) in cases {
            assert_eq!(parts(value), expected, "{value}");
        }
        assert_eq!(parts(0.1) + parts(0.2), parts(0.3), "0.1 + 0.2 is 0.3 here");
    }

    #[test]
    fn zero_asks_for_no_device() {
        assert_eq!(Fraction::parse(0.0), Ok(None));
        assert_eq!(Fraction::parse(-0.0), Ok(None));
    }

    #[test]
    fn what_is_no_share_is_refused_with_its_reason() {
        assert!(matches!(Fraction::parse(f64::NAN), Err(FractionError::NotFinite(_))));
        assert!(matches!(Fraction::parse(f64::INFINITY), Err(FractionError::NotFinite(_))));
        assert_eq!(Fraction::parse(-0.25), Err(FractionError::Negative(-0.25)));
        assert_eq!(Fraction::parse(1.25), Err(FractionError::NotWhole(1.25)));
        assert_eq!(Fraction::parse(0.00005), Err(FractionError::TooFine(0.00005)));
        assert_eq!(Fraction::parse(1.0 / 3.0), Err(FractionError::TooFine(1.0 / 3.0)));
        assert_eq!(Fraction::parse(65.0), Err(FractionError::TooMany(65.0)));
        assert_eq!(Fraction::parse(1e-5), Err(FractionError::TooFine(1e-5)));
        assert_eq!(Fraction::parse(1e-300), Err(FractionError::TooFine(1e-300)), "not taken for 0");
        assert_eq!(Fraction::parse(1.0001), Err(FractionError::NotWhole(1.0001)));
        assert_eq!(Fraction::parse(0.1 + 0.2 + 0.7 + f64::EPSILON), Ok(Some(Fraction::ONE)));
    }

    #[test]
    fn a_number_of_hundreds_of_digits_is_told_in_a_few() {
        let told = |value| Fraction::parse(value).unwrap_err().to_string();
        assert_eq!(told(1e300), "1e300 devices are more than 64, the most one lease can have");
        assert!(told(-1e300).starts_with("-1e300 is negative"));
        assert!(told(f64::MAX).starts_with("1.7976931348623157e308 devices"));
        assert!(told(0.00005).starts_with("0.00005 is finer"));
        assert!(told(f64::NEG_INFINITY).starts_with("-inf is no share"));
    }

    #[test]
    fn a_part_of_an_amount_is_rounded_down_and_never_more_than_all() {
        assert_eq!(Fraction::parse(0.5).unwrap().unwrap().of(7), 3);
        assert_eq!(Fraction::ONE.of(u64::MAX), u64::MAX);
        assert_eq!(Fraction::parse(4.0).unwrap().unwrap().of(100), 100);
    }

    proptest! {
        #[test]
        fn every_ten_thousandth_survives_a_float(n in 1..=WHOLE) {
            let fraction = Fraction::parse(f64::from(n) / f64::from(WHOLE)).unwrap().unwrap();
            prop_assert_eq!(fraction.ten_thousandths(), n);
            prop_assert_eq!(Fraction::parse(fraction.as_f64()).unwrap(), Some(fraction));
            prop_assert_eq!(Fraction::from_ten_thousandths(n), Some(fraction));
        }
    }
}
