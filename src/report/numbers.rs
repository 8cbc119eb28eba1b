//! Numbers and names formatted for human readers.

use std::borrow::Cow;

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

/// A number of things: `1 layer`, `2 layers`.
pub fn counted(n: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n as u64), if n == 1 { "" } else { "s" })
}

/// Decibels, with one decimal.
pub fn decibels(ratio: f64) -> String {
    format!("{ratio:.1} dB")
}

/// A share in percent, with this number of decimals.
pub fn percent(share: f64, decimals: usize) -> String {
    format!("{:.decimals$} %", 100.0 * share)
}

/// Characters of a name beyond which its middle is left out.
const LONG: usize = 60;

/// A name in so many characters as a line has room for: of a longer one the beginning and the end.
pub fn short(name: &str) -> Cow<'_, str> {
    let count = name.chars().count();
    if count <= LONG {
        return Cow::Borrowed(name);
    }
    let kept = LONG / 2;
    let [begin, end]: [String; 2] = [name.chars().take(kept - 1).collect(), name.chars().skip(count - kept).collect()];
    Cow::Owned(format!("{begin}…{end}"))
}

/// A loss in percent, with this number of decimals. Beyond 100 % nothing is left to lose, and how far beyond says nothing.
pub fn loss(share: f64, decimals: usize) -> String {
    if share > 1.0 { "over 100 %".to_owned() } else { percent(share, decimals) }
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
        assert_eq!([0, 1, 2, 1234].map(|n| counted(n, "layer")), ["0 layers", "1 layer", "2 layers", "1,234 layers"]);
        let long = format!("{}/{}", "a".repeat(50), "b".repeat(50));
        assert_eq!(short(&long), format!("{}…{}", "a".repeat(29), "b".repeat(30)));
        assert_eq!([&long[..60], "é"].map(short), [&long[..60], "é"]);
        assert_eq!([0.0123, 1.0, 429_781_185.3].map(|share| loss(share, 1)), ["1.2 %", "100.0 %", "over 100 %"]);
    }
}
