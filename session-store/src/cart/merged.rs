//! An anonymous cart as it was merged, to be known again.

/// All that is in a cart, and the tokens that it remembers. Its revision alone would not do: of a primary that was lost and of the replica in its place two
/// changes may have the same one, and what was merged of the one would end the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Field and value, by their order.
    cart: Vec<[Vec<u8>; 2]>,
    tokens: Vec<u8>,
}

impl Merged {
    /// Of the answers to HGETALL and GET.
    pub(crate) fn new(cart: &[Vec<u8>], tokens: &[u8]) -> Self {
        let mut cart: Vec<_> = cart.chunks_exact(2).map(|pair| [pair[0].clone(), pair[1].clone()]).collect();
        cart.sort_unstable();
        Self { cart, tokens: tokens.to_vec() }
    }

    pub(crate) fn tokens(&self) -> &[u8] {
        &self.tokens
    }

    /// In one argument, as `is_as_merged` of `merging.lua` takes it.
    pub(crate) fn packed(&self) -> Vec<u8> {
        let mut packed = Vec::new();
        pack(&mut packed, &self.tokens);
        self.cart.iter().flatten().for_each(|part| pack(&mut packed, part));
        packed
    }

    /// Field and value of each of its fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.cart.iter().map(|[name, value]| (&name[..], &value[..]))
    }
}

/// One of several parts of an argument, behind those that are there.
pub(crate) fn pack(packed: &mut Vec<u8>, part: &[u8]) {
    packed.extend_from_slice(part.len().to_string().as_bytes());
    packed.push(b':');
    packed.extend_from_slice(part);
}
