use crate::trial::Attack;

pub fn attacks() -> Vec<Attack> {
    Vec::new()
}
