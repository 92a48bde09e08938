//! Pages of lists.

use prost::Message;
use tonic::Status;

use super::errors;

/// Largest page.
const MOST: u32 = 1000;

/// Page of a caller that does not say.
const DEFAULT: usize = 100;

/// A page is cut at this size, well below the 4 MiB that clients take by default.
const BYTES: usize = 2 << 20;

/// How many items to answer.
pub(super) fn size(asked: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(DEFAULT),
        1..=MOST => Ok(usize::try_from(asked).unwrap_or(DEFAULT)),
        _ => Err(errors::field(
            "page_size",
            format!("send 1 to {MOST}, or 0 for {DEFAULT}"),
        )),
    }
}

/// Where the page before ended. Tokens are opaque to callers.
pub(super) fn from_token(token: &str) -> Result<Option<String>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || errors::field("page_token", "send the next_page_token of the page before, or nothing");
    let bytes = hex::decode(token).map_err(|_| wrong())?;
    String::from_utf8(bytes).map(Some).map_err(|_| wrong())
}

/// The token of a page that ends here.
pub(super) fn token(last: &str) -> String {
    hex::encode(last)
}

/// One page of `items`, and the token of the next when there is one. `key` names an item's place in the order.
pub(super) fn cut<T: Message>(
    items: impl IntoIterator<Item = T>,
    most: usize,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, String) {
    let mut page: Vec<T> = Vec::new();
    let mut bytes = 0;
    for item in items {
        bytes += item.encoded_len();
        if page.len() >= most || (bytes > BYTES && !page.is_empty()) {
            let next = page.last().map_or_else(String::new, |last| token(&key(last)));
            return (page, next);
        }
        page.push(item);
    }
    (page, String::new())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_page_is_cut_by_count_and_by_bytes_and_never_empty() {
        let cut_all = |items: &[String], most| cut(items.iter().cloned(), most, Clone::clone);
        let small: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let (page, next) = cut_all(&small, 2);
        assert_eq!((page.len(), from_token(&next).unwrap().as_deref()), (2, Some("b")));
        assert_eq!(cut_all(&small, 3).1, "");
        let large = vec!["x".repeat(BYTES + 1), "y".into()];
        assert_eq!(cut_all(&large, 10).0.len(), 1);
    }

    #[test]
    fn a_wrong_token_or_size_is_a_mistake_of_the_request() {
        assert!(from_token("zz").is_err());
        assert!(size(1001).is_err());
        assert_eq!((size(0).unwrap(), size(1000).unwrap()), (100, 1000));
    }
}
