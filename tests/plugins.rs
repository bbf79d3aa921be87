//! External plugins: the real agent, and programs of all manners.

mod support;

#[path = "plugins/course.rs"]
mod course;
#[path = "plugins/hostile.rs"]
mod hostile;
#[path = "plugins/life.rs"]
mod life;
#[path = "plugins/rig.rs"]
mod rig;
