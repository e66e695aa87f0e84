//! The products that a new database is filled with.

use crate::shop::pictures::Motif;

/// A shelf of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Category {
    Ceramics,
    Lighting,
    Plants,
    Paper,
    Textiles,
    Seating,
}

/// A product as it is seeded.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) sku: &'static str,
    pub(crate) name: &'static str,
    pub(crate) category: Category,
    pub(crate) price_cents: i64,
    pub(crate) stock: i64,
    pub(crate) motif: Motif,
    pub(crate) description: &'static str,
}

impl Category {
    pub(crate) const ALL: [Category; 6] =
        [Category::Ceramics, Category::Lighting, Category::Plants, Category::Paper, Category::Textiles, Category::Seating];

    /// As it stands in URLs and in the database.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Category::Ceramics => "ceramics",
            Category::Lighting => "lighting",
            Category::Plants => "plants",
            Category::Paper => "paper",
            Category::Textiles => "textiles",
            Category::Seating => "seating",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Category::Ceramics => "Ceramics",
            Category::Lighting => "Lighting",
            Category::Plants => "Plants",
            Category::Paper => "Paper",
            Category::Textiles => "Textiles",
            Category::Seating => "Seating",
        }
    }

    pub(crate) fn tagline(self) -> &'static str {
        match self {
            Category::Ceramics => "Thrown, glazed and fired in small batches.",
            Category::Lighting => "Warm light for the hours after six.",
            Category::Plants => "Green company that forgives a holiday.",
            Category::Paper => "For thoughts that want a page of their own.",
            Category::Textiles => "Wool, linen and cotton, woven to last.",
            Category::Seating => "Wood that is glad to hold you.",
        }
    }

    pub(crate) fn parse(slug: &str) -> Option<Category> {
        Category::ALL.into_iter().find(|category| category.slug() == slug)
    }
}

/// The item with this SKU, `None` for a product that was not seeded from here.
pub(crate) fn item(sku: &str) -> Option<&'static Item> {
    ITEMS.iter().find(|item| item.sku == sku)
}

const fn item_of(
    category: Category,
    motif: Motif,
    sku: &'static str,
    name: &'static str,
    price_cents: i64,
    stock: i64,
    description: &'static str,
) -> Item {
    Item { sku, name, category, price_cents, stock, motif, description }
}

/// Every product, in the order of the home page.
#[rustfmt::skip]
pub(crate) static ITEMS: [Item; 42] = {
    use Category::{Ceramics, Lighting, Paper, Plants, Seating, Textiles};
    [
        item_of(Ceramics, Motif::Mug, "tide-mug", "Tide Mug", 1850, 140, "A stoneware mug with a glaze that breaks like a shoreline. Holds 320 ml and keeps its warmth to the last sip."),
        item_of(Lighting, Motif::TableLamp, "dune-table-lamp", "Dune Table Lamp", 8900, 36, "A linen shade on a turned base. The light is soft enough for a bedside and bright enough for a chapter."),
        item_of(Plants, Motif::Monstera, "monstera-albo", "Young Monstera", 3400, 60, "Three split leaves and more on the way. Likes a bright corner, forgives a dry week."),
        item_of(Textiles, Motif::Blanket, "fjord-blanket", "Fjord Blanket", 11900, 44, "Woven from Nordic lambswool, brushed on both sides. 130 × 180 cm, and big enough to share."),
        item_of(Seating, Motif::Chair, "alder-chair", "Alder Chair", 21900, 18, "A dining chair of solid alder with a woven seat. Stackable, repairable, and comfortable into the third hour."),
        item_of(Paper, Motif::Notebook, "field-notebook", "Field Notebook", 1250, 220, "Ninety-six dotted pages, thread-bound, lies flat. The cover is made from paper offcuts."),

        item_of(Ceramics, Motif::Vase, "moss-vase", "Moss Vase", 4200, 38, "A narrow neck for a single stem and a belly for enough water. Reactive green glaze, no two alike."),
        item_of(Lighting, Motif::Pendant, "harbour-pendant", "Harbour Pendant", 12900, 22, "A spun steel shade with a pale inside, hung on two metres of cloth cable."),
        item_of(Plants, Motif::Cactus, "pilot-cactus", "Pilot Cactus", 1600, 90, "Stands upright, asks for little, flowers when nobody is looking. In a 12 cm clay pot."),
        item_of(Textiles, Motif::Cushion, "meadow-cushion", "Meadow Cushion", 3900, 85, "Stone-washed linen with a hidden zip and a feather filling. 50 × 50 cm."),
        item_of(Seating, Motif::Stool, "birch-stool", "Birch Stool", 8400, 40, "Three legs, so it never wobbles. A seat, a bedside table, a step for the top shelf."),
        item_of(Paper, Motif::Pencils, "drawing-pencils", "Drawing Pencils, Set of Five", 1400, 160, "From 2H to 4B in cedar that sharpens clean. In a box that closes."),

        item_of(Ceramics, Motif::Bowl, "rice-bowl", "Rice Bowl", 2100, 120, "Sits well in the hand and in a stack. Porcelain with an unglazed foot."),
        item_of(Lighting, Motif::Lantern, "porch-lantern", "Porch Lantern", 5600, 48, "Powder-coated steel and ribbed glass, for a candle or a lamp. Rain does not trouble it."),
        item_of(Plants, Motif::SnakePlant, "snake-plant", "Snake Plant", 2600, 75, "Tall, patient leaves that clean the air while you sleep. Water it when you remember."),
        item_of(Textiles, Motif::Rug, "ridge-rug", "Ridge Rug", 16900, 20, "A flat-woven wool rug with a quiet stripe. 140 × 200 cm, reversible."),
        item_of(Seating, Motif::Bench, "hallway-bench", "Hallway Bench", 24900, 12, "A long oak bench for shoes, bags and two people with something to talk about."),
        item_of(Paper, Motif::Print, "coast-print", "Coast Print", 3200, 65, "A three-colour risograph of a line where the sea stops. A3, numbered."),

        item_of(Ceramics, Motif::Teapot, "low-teapot", "Low Teapot", 5900, 30, "Pours without a drip, holds four cups, comes with a steel basket for the leaves."),
        item_of(Lighting, Motif::FloorLamp, "heron-floor-lamp", "Heron Floor Lamp", 18900, 16, "Stands on one leg behind the armchair and looks over your shoulder. Dimmable."),
        item_of(Plants, Motif::Tree, "olive-tree", "Olive Tree", 6900, 24, "A small standard olive with silver leaves, for a balcony with sun. About 90 cm."),
        item_of(Textiles, Motif::Towel, "waffle-towel", "Waffle Towel", 2900, 110, "Dries fast, takes no space, gets softer with each wash. Organic cotton, 70 × 140 cm."),
        item_of(Seating, Motif::Armchair, "evening-armchair", "Evening Armchair", 54900, 8, "A deep seat, a high back and wool that is kind to cheeks. It has opinions about when you get up."),
        item_of(Paper, Motif::Cards, "thank-you-cards", "Thank-You Cards", 1100, 180, "Eight letterpress cards with envelopes. The words inside are yours."),

        item_of(Ceramics, Motif::Plate, "supper-plate", "Supper Plate", 2400, 130, "A wide rim for the sauce and a matte glaze that does not mind a knife. 27 cm."),
        item_of(Lighting, Motif::Globe, "moon-lamp", "Moon Lamp", 7400, 34, "A globe of opal glass on a brass foot. It glows rather than shines."),
        item_of(Plants, Motif::Fern, "boston-fern", "Boston Fern", 2200, 55, "A generous cascade for a shelf in the shade. Mist it, and it thanks you."),
        item_of(Textiles, Motif::Napkins, "linen-napkins", "Linen Napkins, Set of Four", 3600, 70, "Mitred corners, washed linen, colours that go with everything that spills. 45 × 45 cm."),
        item_of(Seating, Motif::Pouf, "felt-pouf", "Felt Pouf", 12400, 26, "A round, firm seat of pressed wool felt. Feet up, or one guest more."),
        item_of(Paper, Motif::Planner, "week-planner", "Week Planner", 1900, 95, "Fifty-two undated weeks on a pad. Tear one off and start over."),

        item_of(Ceramics, Motif::Jar, "larder-jar", "Larder Jar", 3100, 58, "An airtight jar with a beech lid for coffee, oats or secrets. One litre."),
        item_of(Lighting, Motif::Candle, "beeswax-candles", "Beeswax Candles, Pair", 1700, 150, "Dipped by hand, burn for nine hours, smell faintly of summer."),
        item_of(Plants, Motif::Succulent, "echeveria", "Echeveria", 900, 120, "A rosette the size of a palm in powdery blue. Sun, and not much else."),
        item_of(Textiles, Motif::Quilt, "patch-quilt", "Patch Quilt", 18900, 14, "Pieced from the cuttings of our other textiles, quilted by hand. Each one is the only one."),
        item_of(Seating, Motif::Rocker, "slow-rocker", "Slow Rocker", 38900, 9, "A rocking chair of steamed ash with a long, unhurried swing."),
        item_of(Paper, Motif::Wrap, "wrapping-paper", "Wrapping Paper, Three Rolls", 1500, 140, "Block-printed patterns on recycled paper, two metres each. No glitter, ever."),

        item_of(Ceramics, Motif::Pitcher, "well-pitcher", "Well Pitcher", 4800, 32, "A litre and a half of water, lemonade or tulips, with a handle that fits a whole hand."),
        item_of(Lighting, Motif::Pendant, "studio-pendant", "Studio Pendant", 9900, 28, "A small dome for a big table. Hang one, hang three."),
        item_of(Plants, Motif::Monstera, "rubber-plant", "Rubber Plant", 2900, 50, "Broad, glossy leaves with a blush underneath. Dust it now and then and it shines."),
        item_of(Textiles, Motif::Blanket, "picnic-throw", "Picnic Throw", 6400, 52, "Recycled wool with a checked face and a leather strap. For grass, sand and back seats."),
        item_of(Seating, Motif::Chair, "cafe-chair", "Café Chair", 17900, 30, "Bent beech and a cane seat, light enough to carry out into the sun."),
        item_of(Paper, Motif::Notebook, "sketchbook", "Sketchbook", 2200, 85, "Heavy cream paper that takes a wash of colour. Sewn, with a cloth spine."),
    ]
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Category, ITEMS};

    #[test]
    fn skus_are_unique_and_each_category_has_its_share() {
        let skus: HashSet<_> = ITEMS.iter().map(|item| item.sku).collect();
        assert_eq!(skus.len(), ITEMS.len());
        for category in Category::ALL {
            assert_eq!(ITEMS.iter().filter(|item| item.category == category).count(), 7, "{category:?}");
        }
    }
}
