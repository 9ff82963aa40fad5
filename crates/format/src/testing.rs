//! Helps of the tests.

/// Bytes of a hex dump; blanks are ignored.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    assert!(digits.len().is_multiple_of(2), "odd number of hex digits");
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// Content of the golden blocks of testdata: name without algorithm, bytes.
pub(crate) fn golden_plain(name: &str) -> Vec<u8> {
    let join = |parts: &mut dyn Iterator<Item = String>| parts.collect::<String>().into_bytes();
    match name {
        "1_0_1000" => join(&mut (0..60).map(|i| format!("line {i} of the golden file\n")))[..1000].to_vec(),
        "2_0_256" | "3_0_256" => (0..8_u8)
            .flat_map(|i| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[i]).as_ref().to_vec())
            .collect(),
        "3_0_1" => b"x".to_vec(),
        "4_1_4464" => join(&mut (0..20000_u32).map(|i| (i * i).to_string()))[65536..70000].to_vec(),
        other => panic!("no golden file {other}"),
    }
}
