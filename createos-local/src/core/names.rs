//! Generated names: `<adjective>-<animal>`, api.md 1.6.

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "apt", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "civil", "clear", "clever", "cosmic", "cozy", "crisp", "daring", "deft", "eager",
    "early", "easy", "even", "fair", "fleet", "fond", "frank", "fresh", "gentle", "giddy", "glad",
    "golden", "grand", "happy", "hardy", "humble", "jolly", "keen", "kind", "lively", "loyal",
    "lucid", "lucky", "mellow", "merry", "mild", "misty", "modest", "neat", "nimble", "noble",
    "patient", "placid", "plucky", "polite", "proud", "quick", "quiet", "rapid", "sharp", "snug",
    "steady", "sunny", "witty",
];

const ANIMALS: [&str; 64] = [
    "alpaca", "badger", "beaver", "bison", "bobcat", "camel", "caribou", "cheetah", "cobra",
    "condor", "coyote", "crane", "dingo", "dolphin", "donkey", "eagle", "egret", "falcon",
    "ferret", "finch", "fox", "gazelle", "gecko", "gibbon", "goose", "hare", "hawk", "hedgehog",
    "heron", "ibex", "iguana", "impala", "jackal", "jaguar", "kestrel", "koala", "lemur",
    "leopard", "lizard", "llama", "lynx", "magpie", "marmot", "marten", "mole", "moose", "newt",
    "ocelot", "orca", "osprey", "otter", "owl", "panda", "parrot", "pelican", "puffin", "quail",
    "rabbit", "raven", "salmon", "seal", "sparrow", "tapir", "walrus",
];

/// Tries without a number before one is added.
const PLAIN_TRIES: u32 = 8;

/// A fresh name. Whether it is free is for the caller to find out; from the ninth `attempt` on
/// a number makes collisions rare even when most pairs are taken.
pub(crate) fn generate(attempt: u32) -> String {
    let adjective = ADJECTIVES[fastrand::usize(..ADJECTIVES.len())];
    let animal = ANIMALS[fastrand::usize(..ANIMALS.len())];
    if attempt < PLAIN_TRIES {
        format!("{adjective}-{animal}")
    } else {
        format!("{adjective}-{animal}-{}", fastrand::u32(10..10_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::validate;

    #[test]
    fn every_generated_name_is_valid() {
        for adjective in ADJECTIVES {
            for animal in ANIMALS {
                let longest = format!("{adjective}-{animal}-9999");
                assert_eq!(validate::name(&longest), Ok(()), "{longest}");
            }
        }
        assert_eq!(validate::name(&generate(0)), Ok(()));
        assert_eq!(validate::name(&generate(PLAIN_TRIES)), Ok(()));
    }
}
