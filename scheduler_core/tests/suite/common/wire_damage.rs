//! Damage to encoded messages: to their bytes, and to their fields, so that what is damaged is still a
//! message and says something that nobody would say.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::encoding::{decode_varint, encode_varint};

/// One wound.
#[derive(Debug, Clone)]
pub enum Damage {
    /// Of the bytes.
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    /// Of a field, however deep: another number, gone, there twice, in the place of another.
    Number(Index, u64),
    Remove(Index),
    Repeat(Index),
    Move(Index, Index),
}

pub fn wounds(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Damage>> {
    let at = any::<Index>;
    let number = prop::sample::select(vec![0, 1, 2, 999, 1 << 20, 1 << 31, 1 << 40, 1 << 62, 1 << 63, u64::MAX]);
    let damage = prop_oneof![
        1 => (at(), any::<u8>()).prop_map(|(i, byte)| Damage::Flip(i, byte)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), vec(any::<u8>(), 1..12)).prop_map(|(i, bytes)| Damage::Insert(i, bytes)),
        6 => (at(), number).prop_map(|(i, number)| Damage::Number(i, number)),
        2 => at().prop_map(Damage::Remove),
        2 => at().prop_map(Damage::Repeat),
        1 => (at(), at()).prop_map(|(i, j)| Damage::Move(i, j)),
    ];
    vec(damage, count)
}

/// The bytes after all wounds.
pub fn damaged(mut bytes: Vec<u8>, wounds: &[Damage]) -> Vec<u8> {
    for wound in wounds {
        let length = bytes.len();
        let mut fields = fields(&bytes).unwrap_or_default();
        let count = fields.iter().map(Field::size).sum::<usize>();
        match wound {
            _ if length == 0 => {}
            Damage::Flip(i, byte) => bytes[i.index(length)] ^= byte,
            Damage::Cut(i) => bytes.truncate(i.index(length)),
            Damage::Insert(i, more) => {
                let start = i.index(length);
                bytes.splice(start..start, more.iter().copied());
            }
            _ if count == 0 => {}
            Damage::Number(i, number) => {
                change(&mut fields, &mut i.index(count), &mut |siblings, at| {
                    if let Value::Number(value) = &mut siblings[at].value {
                        *value = *number;
                    }
                });
                bytes = encoded(&fields);
            }
            Damage::Remove(i) => {
                change(&mut fields, &mut i.index(count), &mut |siblings, at| drop(siblings.remove(at)));
                bytes = encoded(&fields);
            }
            Damage::Repeat(i) => {
                change(&mut fields, &mut i.index(count), &mut |siblings, at| siblings.push(siblings[at].clone()));
                bytes = encoded(&fields);
            }
            Damage::Move(i, j) => {
                let mut taken = None;
                change(&mut fields, &mut i.index(count), &mut |siblings, at| taken = Some(siblings[at].value.clone()));
                change(&mut fields, &mut j.index(count), &mut |siblings, at| {
                    siblings[at].value = taken.clone().expect("it was just taken");
                });
                bytes = encoded(&fields);
            }
        }
    }
    bytes
}

/// A field of some message; its number only, since nothing here knows the schema.
#[derive(Debug, Clone)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
    /// Bytes that read as a message.
    Message(Vec<Field>),
}

impl Field {
    /// How many fields there are in it, itself included.
    fn size(&self) -> usize {
        match &self.value {
            Value::Message(fields) => 1 + fields.iter().map(Field::size).sum::<usize>(),
            _ => 1,
        }
    }
}

/// The fields of a message; none where the bytes are none, or use types that our messages do not.
fn fields(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = decode_varint(&mut bytes).ok()?;
        let value = match key & 7 {
            0 => Value::Number(decode_varint(&mut bytes).ok()?),
            2 => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let (inner, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                let message = fields(inner).filter(|fields| !fields.is_empty());
                message.map_or_else(|| Value::Bytes(inner.to_vec()), Value::Message)
            }
            _ => return None,
        };
        found.push(Field { number: key >> 3, value });
    }
    Some(found)
}

fn encoded(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        let inner = match &field.value {
            Value::Number(number) => {
                encode_varint(field.number << 3, &mut bytes);
                encode_varint(*number, &mut bytes);
                continue;
            }
            Value::Bytes(inner) => inner.clone(),
            Value::Message(fields) => encoded(fields),
        };
        encode_varint(field.number << 3 | 2, &mut bytes);
        encode_varint(inner.len() as u64, &mut bytes);
        bytes.extend(inner);
    }
    bytes
}

/// Calls `work` with the siblings of the field that `left` counts down to, and its place among them.
fn change(fields: &mut Vec<Field>, left: &mut usize, work: &mut dyn FnMut(&mut Vec<Field>, usize)) -> bool {
    for at in 0..fields.len() {
        if *left == 0 {
            work(fields, at);
            return true;
        }
        *left -= 1;
        if let Value::Message(inner) = &mut fields[at].value {
            if change(inner, left, work) {
                return true;
            }
        }
    }
    false
}
