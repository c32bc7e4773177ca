mod dedup;

fn main() {}
