//! Numbers formatted for human readers.

/// Bytes in a suitable decimal unit, as in file managers.
pub fn bytes(n: u64) -> String {
    match n {
        0..1000 => format!("{n} B"),
        1000..10_000_000 => format!("{} KB", grouped(n.div_ceil(1000))),
        10_000_000..10_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// A count in a suitable unit: `268 k`, `41 M`.
pub fn count(n: u64) -> String {
    match n {
        0..10_000 => grouped(n),
        10_000..10_000_000 => format!("{} k", grouped(n / 1000)),
        _ => format!("{} M", grouped(n / 1_000_000)),
    }
}

/// Digits in groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Decibels, with one decimal.
pub fn decibels(ratio: f64) -> String {
    format!("{ratio:.1} dB")
}

/// A share in percent, with this number of decimals.
pub fn percent(share: f64, decimals: usize) -> String {
    format!("{:.decimals$} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_126_891), "1,127 KB");
        assert_eq!(bytes(18_827_058), "18.8 MB");
        assert_eq!(count(268_336), "268 k");
        assert_eq!(count(41_000_000), "41 M");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
