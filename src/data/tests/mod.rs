//! Every source and every error, on small generated files.

mod archives;
mod arrays;
mod made_up;
mod pictures;
mod protobuf;
mod support;
