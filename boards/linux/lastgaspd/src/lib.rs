//! lastgaspd
