//! Elements of arrays as numbers, and the conversions between their types.

use half::f16;

/// Floats from here on are written with an exponent.
const LARGE: f64 = 1e16;

/// One element, widened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    pub(super) fn real(self) -> f64 {
        match self {
            Self::Whole(x) => x as f64,
            Self::Real(x) => x,
        }
    }

    /// The value as an integer; `None` for fractions, NaN and infinities.
    pub(super) fn whole(self) -> Option<i128> {
        match self {
            Self::Whole(x) => Some(x),
            Self::Real(x) => (x.is_finite() && x.fract() == 0.0).then_some(x as i128),
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Whole(x) => x.to_string(),
            Self::Real(x) if x.abs() >= LARGE => format!("{x:?}"),
            Self::Real(x) => x.to_string(),
        }
    }
}

/// Operations of an element type.
pub(super) trait Element: Copy {
    fn number(self) -> Number;
    fn from_number(number: Number) -> Option<Self>;
}

macro_rules! integer_elements {
    ($($t:ty),*) => {$(
        impl Element for $t {
            fn number(self) -> Number {
                Number::Whole(i128::from(self))
            }
            fn from_number(number: Number) -> Option<Self> {
                Self::try_from(number.whole()?).ok()
            }
        }
    )*};
}
integer_elements!(i8, u8, i16, u16, i32, u32, i64, u64);

impl Element for bool {
    fn number(self) -> Number {
        Number::Whole(i128::from(self))
    }
    fn from_number(number: Number) -> Option<Self> {
        match number.whole()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Element for f32 {
    fn number(self) -> Number {
        Number::Real(f64::from(self))
    }
    fn from_number(number: Number) -> Option<Self> {
        let real = number.real();
        Some(real as Self).filter(|float| float.is_finite() || !real.is_finite())
    }
}

impl Element for f64 {
    fn number(self) -> Number {
        Number::Real(self)
    }
    fn from_number(number: Number) -> Option<Self> {
        Some(number.real())
    }
}

impl Element for f16 {
    fn number(self) -> Number {
        Number::Real(self.to_f64())
    }
    fn from_number(number: Number) -> Option<Self> {
        let real = number.real();
        Some(Self::from_f64(real)).filter(|float| float.is_finite() || !real.is_finite())
    }
}
