//! What the fuzz targets share: networks to start from, and edits that break them.

mod edit;
mod networks;

pub use edit::{Case, Edit};
pub use networks::{fixtures, networks};
