//! Weights on trellis codes: the string of bits whose windows come closest to a column.
//!
//! [`msq_passes::TrellisCode`] says what a column of n weights may be: each `q_i` is an entry of a table for a window of 8
//! bits, and neighbouring windows overlap. For targets y and importances ω the search (`viterbi`) finds windows with the
//! least
//!
//! `Σ_i ω_i·(y_i − q_i)²`
//!
//! over a circle of windows: exactly for short columns, and close to exactly for long ones.

#[cfg(test)]
mod tests;
mod viterbi;

pub(crate) use viterbi::Encoder;

/// The root mean square of a table's entries.
pub(crate) fn spread(table: &[i8]) -> f64 {
    let squares: f64 = table.iter().map(|&q| f64::from(q).powi(2)).sum();
    (squares / table.len().max(1) as f64).sqrt()
}
