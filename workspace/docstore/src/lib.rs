//! docstore
