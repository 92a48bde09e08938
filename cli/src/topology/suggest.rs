//! "did you mean ...?"

/// The candidate that `text` was most likely meant to be, if one is near enough.
pub(super) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A name of 64 KB is not a slip of the finger, and the distance costs the square of the length.
    if text.len() > 64 {
        return None;
    }
    let lower = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(text.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_mended_and_another_word_is_not() {
        let known = ["name", "worker", "internet_enabled", "data_interfaces_count"];
        assert_eq!(nearest("wroker", known), Some("worker"));
        assert_eq!(nearest("internet", known), None);
        assert_eq!(nearest("data_interface_count", known), Some("data_interfaces_count"));
        assert_eq!(nearest("Name", known), Some("name"));
        assert_eq!(nearest("colour", known), None);
    }
}
