//! Numbers of a few bits, packed without gaps, and what else messages are made of.

/// Appends the lowest `width` bits of each number, at most 16, the first number in the lowest bits of the first byte.
pub(super) fn pack(numbers: impl Iterator<Item = u32>, width: u32, bytes: &mut Vec<u8>) {
    let (mut held, mut count) = (0_u32, 0);
    for number in numbers {
        held |= number << count;
        count += width;
        while count >= 8 {
            bytes.push(held as u8);
            held >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        bytes.push(held as u8);
    }
}

/// Reads so many numbers that [`pack`] wrote.
pub(super) fn unpack(bytes: &mut &[u8], width: u32, len: usize) -> Option<Vec<u32>> {
    let width = width as usize;
    let packed = take(bytes, (len * width).div_ceil(8))?;
    let number = |at: usize| {
        let (byte, shift) = (at * width / 8, at * width % 8);
        let part = |slot: usize| packed.get(byte + slot).map_or(0, |&part| u32::from(part) << (8 * slot));
        ((part(0) | part(1) | part(2)) >> shift) & ((1 << width) - 1)
    };
    Some((0..len).map(number).collect())
}

/// Takes so many bytes from the front.
pub(super) fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(front)
}

/// Takes a float from the front.
pub(super) fn take_float(bytes: &mut &[u8]) -> Option<f32> {
    Some(f32::from_le_bytes(take(bytes, 4)?.try_into().ok()?))
}

/// Appends a number in as many bytes as it takes, seven bits in each (LEB128).
pub(super) fn put_number(mut number: usize, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes such a number from the front.
pub(super) fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        number |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
