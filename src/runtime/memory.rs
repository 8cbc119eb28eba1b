//! Whether there is memory, before something is built that cannot say no.
//!
//! Where the system grants less than is asked for, most allocations end the process. A model of a few bytes can ask for
//! values of any size.

/// Whether so many bytes can be had at once now. They are asked for and given back untouched.
pub(crate) fn is_there(bytes: usize) -> bool {
    let mut asked: Vec<u8> = Vec::new();
    let granted = asked.try_reserve_exact(bytes).is_ok();
    // Otherwise the compiler may leave out what nothing uses.
    std::hint::black_box(&asked);
    granted
}

#[cfg(test)]
mod tests {
    use super::is_there;

    #[test]
    fn less_than_all_there_could_be() {
        assert!(is_there(0) && is_there(1 << 20));
        assert!(!is_there(usize::MAX) && !is_there(1 << 60));
    }
}
