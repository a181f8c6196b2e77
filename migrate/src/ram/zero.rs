//! Finds pages that are all zero. Pure.

/// Whether every byte is zero. The bytes are looked at in wide blocks that the compiler turns into
/// vector instructions, and most pages that are not zero show it in their first block.
pub(super) fn is_zero(page: &[u8]) -> bool {
    let (blocks, rest) = page.as_chunks::<256>();
    blocks.iter().all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::is_zero;

    #[test]
    fn any_single_byte_makes_a_page_nonzero() {
        let mut page = vec![0; 4096];
        assert!(is_zero(&page));
        for at in 0..page.len() {
            page[at] = 1;
            assert!(!is_zero(&page), "byte {at}");
            page[at] = 0;
        }
        assert!(is_zero(&[]));
        assert!(!is_zero(&[0, 0, 5]));
    }
}
