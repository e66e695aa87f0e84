//! Between replies and Lua values, by Redis's rules of conversion
//! (<https://redis.io/docs/latest/develop/interact/programmability/lua-api/#data-type-conversion>).
//!
//! Both directions work on Lua's stack, which may leave any function here by a jump: none of them owns anything.

use std::cell::Cell;

use crate::{
    command::prefix,
    protocol::{Protocol, Reply, parse_integer},
    script::{
        host::{Deadline, OVER},
        stack::{Stack, Type},
    },
    stats::ErrorStats,
};

/// Tables within tables that a script may return: more is an error and not a stack overflow.
const DEPTH_MAX: usize = 200;

/// Values that one level of a conversion keeps on the stack at once.
const VALUES_PER_LEVEL: i32 = 6;

/// Pushes the reply at the front of `bytes` and takes it from there; it comes from our own encoder, so a malformed one is a bug and
/// becomes nil. May raise.
pub(super) fn push(stack: Stack, bytes: &mut &[u8]) {
    let Some((kind, text)) = take_line(bytes) else { return stack.push_nil() };
    match kind {
        b'+' => push_field(stack, b"ok", text),
        b'-' => push_field(stack, b"err", text),
        b':' => stack.push_number(integer(text) as f64),
        b'$' | b'=' => match usize::try_from(integer(text)) {
            Ok(length) if length + 2 <= bytes.len() => {
                let content = &bytes[..length];
                *bytes = &bytes[length + 2..];
                // A verbatim string's "txt:" goes away.
                stack.push_bytes(if kind == b'=' { content.get(4..).unwrap_or_default() } else { content });
            }
            _ => stack.push_boolean(false),
        },
        b'*' | b'>' => match usize::try_from(integer(text)) {
            Ok(length) => {
                reserve(stack);
                stack.push_table(length, 0);
                let table = stack.len();
                for index in (1..).take(length) {
                    push(stack, bytes);
                    stack.set_element(table, index);
                }
            }
            Err(_) => stack.push_boolean(false),
        },
        b'~' | b'%' => push_fields(stack, kind, integer(text), bytes),
        b',' => {
            stack.push_table(0, 1);
            stack.push_bytes(b"double");
            stack.push_number(std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN));
            stack.set(-3);
        }
        b'#' => stack.push_boolean(text == b"t"),
        _ => stack.push_nil(),
    }
}

/// A set or a map: a table in a table that tells which. May raise.
fn push_fields(stack: Stack, kind: u8, length: i64, bytes: &mut &[u8]) {
    reserve(stack);
    stack.push_table(0, 1);
    stack.push_bytes(if kind == b'~' { b"set" } else { b"map" });
    stack.push_table(0, usize::try_from(length).unwrap_or(0));
    let table = stack.len();
    for _ in 0..length {
        push(stack, bytes);
        if kind == b'~' {
            stack.push_boolean(true);
        } else {
            push(stack, bytes);
        }
        stack.set(table);
    }
    stack.set(-3);
}

/// Room for another level. May raise.
fn reserve(stack: Stack) {
    if !stack.reserve(VALUES_PER_LEVEL) {
        stack.raise_text("ERR reached lua stack limit");
    }
}

/// A table with one text. May raise.
fn push_field(stack: Stack, field: &[u8], text: &[u8]) {
    stack.push_table(0, 1);
    stack.push_bytes(field);
    stack.push_bytes(text);
    stack.set(-3);
}

/// The line at the front, without its first byte and its end.
fn take_line<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    let (kind, text) = bytes[..end].split_first()?;
    *bytes = bytes.get(end + 2..)?;
    Some((*kind, text))
}

fn integer(text: &[u8]) -> i64 {
    parse_integer(text).unwrap_or(0)
}

/// How a result is written. `resp` is what the script chose with `redis.setresp`. A table that stands in itself many times over is small
/// in Lua and without end here: the walk keeps to the script's time, and ends with the first that does not fit into the reply.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) resp: &'a Cell<Protocol>,
    pub(super) deadline: &'a Deadline,
    pub(super) tally: &'a Tally<'a>,
}

/// The field by which a table says that its error was counted, as in Redis.
pub(super) const COUNTED: &str = "ignore_error_stats_update";

/// Errors in what a script returns.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    errors: &'a ErrorStats,
    /// Those of commands, which were counted there.
    of_commands: Cell<u64>,
    /// Whether the script made others.
    has_own: Cell<bool>,
}

impl Tally<'_> {
    pub(super) fn new(errors: &ErrorStats) -> Tally<'_> {
        Tally { errors, of_commands: Cell::new(0), has_own: Cell::new(false) }
    }

    /// How often the script failed: for each error of a command, and once for all of its own, as Redis counts it.
    pub(super) fn failures(&self) -> u64 {
        self.of_commands.get() + u64::from(self.has_own.get())
    }

    fn add(&self, text: &[u8], is_counted: bool) {
        if is_counted {
            self.of_commands.set(self.of_commands.get() + 1);
        } else {
            self.has_own.set(true);
            self.errors.count(prefix(text));
        }
    }
}

/// The script's time is over.
struct Over;

impl Walk<'_> {
    /// Writes the value on top. `false`: it could not, and what is raised instead stands on top. May raise.
    pub(super) fn write_result(self, stack: Stack, reply: &mut Reply) -> bool {
        if self.write(stack, reply, 0).is_ok() {
            return true;
        }
        stack.push_bytes(OVER.as_bytes());
        false
    }

    /// Writes and pops the value on top.
    fn write(self, stack: Stack, reply: &mut Reply, depth: usize) -> Result<(), Over> {
        match stack.type_of(-1) {
            Type::String => stack.with_bytes(-1, |text| reply.bulk(text)),
            // Numbers lose their fraction: Redis documents that scripts return strings where it matters.
            Type::Number => reply.integer(stack.number(-1) as i64),
            // The script's protocol decides whether there are booleans, the client's how they are written.
            Type::Boolean => match (stack.boolean(-1), self.resp.get(), reply.protocol()) {
                (flag, Protocol::Resp3, Protocol::Resp2) => reply.flag(flag),
                (flag, Protocol::Resp3, Protocol::Resp3) => reply.raw(if flag { b"#t\r\n" } else { b"#f\r\n" }),
                (true, Protocol::Resp2, _) => reply.integer(1),
                (false, Protocol::Resp2, _) => reply.null(),
            },
            Type::Table if depth < DEPTH_MAX && stack.reserve(VALUES_PER_LEVEL) => self.write_table(stack, reply, depth)?,
            Type::Table => reply.error("ERR reached lua stack limit"),
            Type::Nil | Type::Other => reply.null(),
        }
        stack.pop(1);
        Ok(())
    }

    /// Writes the table on top.
    fn write_table(self, stack: Stack, reply: &mut Reply, depth: usize) -> Result<(), Over> {
        if depth > 0 && self.deadline.has_passed() {
            return Err(Over);
        }
        let table = stack.len();
        if get_field(stack, table, b"err") == Type::String {
            stack.push_bytes(COUNTED.as_bytes());
            stack.get(table);
            let is_counted = stack.boolean(-1);
            stack.pop(1);
            stack.with_bytes(-1, |text| {
                self.tally.add(text, is_counted);
                reply.error(&String::from_utf8_lossy(text));
            });
        } else if get_field(stack, table, b"ok") == Type::String {
            stack.with_bytes(-1, |text| reply.simple(&String::from_utf8_lossy(text)));
        } else if get_field(stack, table, b"double") == Type::Number {
            reply.double(stack.number(-1));
        } else if get_field(stack, table, b"map") == Type::Table {
            let map = stack.len();
            reply.map(count(stack, map));
            stack.push_nil();
            while stack.next(map) {
                stack.push_copy(-2);
                self.write(stack, reply, depth + 1)?;
                self.write(stack, reply, depth + 1)?;
            }
        } else if get_field(stack, table, b"set") == Type::Table {
            let set = stack.len();
            reply.set(count(stack, set));
            stack.push_nil();
            while stack.next(set) {
                stack.pop(1);
                stack.push_copy(-1);
                self.write(stack, reply, depth + 1)?;
            }
        } else {
            self.write_elements(stack, table, reply, depth)?;
        }
        stack.truncate(table);
        Ok(())
    }

    fn write_elements(self, stack: Stack, table: i32, reply: &mut Reply, depth: usize) -> Result<(), Over> {
        let mark = reply.open();
        let mut length = 0;
        // Up to the first nil, as Redis does.
        loop {
            stack.get_element(table, length + 1);
            if stack.type_of(-1) == Type::Nil || reply.is_over() {
                break;
            }
            self.write(stack, reply, depth + 1)?;
            length += 1;
        }
        reply.close_array(mark, length as usize);
        Ok(())
    }
}

/// Pushes a field in the place of what was looked at before, and gives its type. May raise.
fn get_field(stack: Stack, table: i32, field: &[u8]) -> Type {
    stack.truncate(table);
    stack.push_bytes(field);
    stack.get(table);
    stack.type_of(-1)
}

/// Fields of a table.
fn count(stack: Stack, table: i32) -> usize {
    let mut count = 0;
    stack.push_nil();
    while stack.next(table) {
        stack.pop(1);
        count += 1;
    }
    count
}
