//! Passes that turn a QDQ graph into operators on integers.

mod fuse_nbits;
mod fuse_qlinear;
mod lower_integer;

pub use fuse_nbits::FuseNBits;
pub use fuse_qlinear::FuseQlinear;
pub use lower_integer::LowerInteger;
