//! The interface to models: the Model Context Protocol.

pub mod excerpt;
