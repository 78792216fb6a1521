//! Byte fixtures of tests.

/// Decodes a fixture: hexadecimal digits and spaces; `#` begins a comment.
pub(crate) fn bytes(fixture: &str) -> Vec<u8> {
    let digits: String = fixture.lines().flat_map(|line| line.split('#').next()).collect();
    let digits: Vec<u8> = digits.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
