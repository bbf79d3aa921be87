#[allow(unused)]
fn placeholder() {}
