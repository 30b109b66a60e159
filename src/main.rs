//! The program `valet`.

fn main() {}
