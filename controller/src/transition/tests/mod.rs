#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod drafts;
mod isolation;
mod life;
mod lifecycle;
mod properties;
mod waiting;
