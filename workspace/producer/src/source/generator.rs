//! Orders that nobody placed.
//!
//! The order with id N of seed S is the same whenever and wherever it is made, apart from its time: each order
//! draws from a random stream of its own, which is chosen by its id. Everything is drawn in integers, so
//! results do not depend on a platform's floating-point library.

use domain::{Country, Currency, EventTime, MinorUnits, Money, NewItem, NewOrder, OrderId, admit};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Entry, Source, SourceError};

/// Country, weight, currency, and how many of its minor units a US cent is worth, in thousandths.
const MARKETS: [(&str, u32, &str, i64); 22] = [
    ("US", 380, "USD", 1000),
    ("CA", 60, "CAD", 1370),
    ("GB", 140, "GBP", 790),
    ("DE", 95, "EUR", 920),
    ("FR", 65, "EUR", 920),
    ("NL", 35, "EUR", 920),
    ("ES", 35, "EUR", 920),
    ("IT", 30, "EUR", 920),
    ("IE", 15, "EUR", 920),
    ("AU", 35, "AUD", 1520),
    ("SG", 15, "SGD", 1350),
    ("CH", 12, "CHF", 890),
    ("BR", 12, "BRL", 5400),
    ("PL", 10, "PLN", 4000),
    ("JP", 20, "JPY", 1500),
    ("IN", 10, "INR", 84_000),
    ("SE", 8, "SEK", 10_500),
    ("MX", 6, "MXN", 18_000),
    ("AE", 5, "AED", 3670),
    ("ZA", 4, "ZAR", 18_500),
    ("KW", 4, "KWD", 3070),
    ("NG", 4, "NGN", 1_500_000),
];

/// Quantiles of the amount in US cents, in ten-thousandths: straight lines between these points follow a
/// log-normal distribution with a median of 115 dollars and a heavy tail.
const AMOUNTS: [(u32, i64); 11] = [
    (0, 199),
    (500, 1450),
    (1000, 2500),
    (2500, 5400),
    (5000, 11_500),
    (7500, 24_500),
    (9000, 48_500),
    (9500, 72_000),
    (9900, 152_000),
    (9990, 390_000),
    (10_000, 2_500_000),
];

const VENDORS: [&str; 16] = [
    "Northwind Traders",
    "Contoso Retail",
    "Blue Harbor Books",
    "Alpine Outfitters",
    "Fabrikam Electronics",
    "Maple & Pine Furniture",
    "Sunrise Grocers",
    "Copper Kettle Kitchenware",
    "Meridian Bikes",
    "Paper Lantern Stationery",
    "Granite Tools",
    "Juniper Skincare",
    "Lakeside Garden Centre",
    "Orbit Toys",
    "Velvet Records",
    "ABC Construction",
];

const ARTICLES: [&str; 12] = [
    "desk lamp",
    "running shoes",
    "headphones",
    "coffee beans 1 kg",
    "rain jacket",
    "cordless drill",
    "cookbook",
    "office chair",
    "face cream",
    "board game",
    "vinyl record",
    "garden hose",
];

/// Customers and their orders follow Zipf's law roughly: each doubling of the rank gets the same share.
const CUSTOMER_DOUBLINGS: u32 = 14;

/// The time that generated orders bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeneratedTime {
    /// The moment of making.
    Now,
    /// A fixed start and a fixed step: the whole output is then the same for a seed.
    From {
        /// The first order's time.
        start: EventTime,
        /// Milliseconds to the next.
        step_ms: i64,
    },
}

/// Makes orders, without end or a given number of them.
#[derive(Debug)]
pub struct Generator {
    random: ChaCha8Rng,
    next_id: i64,
    made: u64,
    count: Option<u64>,
    time: GeneratedTime,
    markets: Vec<(Country, u32, Currency, i64)>,
}

impl Generator {
    /// Orders of `seed` with ids from `first_id` on.
    pub fn new(seed: u64, first_id: i64, count: Option<u64>, time: GeneratedTime) -> Self {
        let markets = MARKETS
            .iter()
            .filter_map(|&(country, weight, currency, factor)| {
                Some((
                    Country::parse(country).ok()?,
                    weight,
                    Currency::parse(currency).ok()?,
                    factor,
                ))
            })
            .collect();
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            next_id: first_id,
            made: 0,
            count,
            time,
            markets,
        }
    }

    /// The next order; `None` when the count is reached or the ids end.
    pub fn next_order(&mut self, now: EventTime) -> Option<NewOrder> {
        if self.count.is_some_and(|count| self.made >= count) || self.next_id == i64::MAX {
            return None;
        }
        let id = self.next_id;
        // A stream per id: an order does not depend on those before it.
        self.random.set_stream(id.cast_unsigned());
        self.random.set_word_pos(0);
        let timestamp = match self.time {
            GeneratedTime::Now => now,
            GeneratedTime::From { start, step_ms } => {
                let step = i64::try_from(self.made)
                    .unwrap_or(i64::MAX)
                    .saturating_mul(step_ms);
                EventTime(start.0.saturating_add(step))
            }
        };
        let (country, currency, factor) = self.market()?;
        let money = Money {
            minor: MinorUnits(self.minor_units(factor)),
            currency,
        };
        let customer = 1 + self.ranked(CUSTOMER_DOUBLINGS);
        let vendor = self.ranked(VENDORS.len().ilog2()) as usize;
        let items = self.items(money);
        self.made += 1;
        self.next_id += 1;
        Some(NewOrder {
            id: OrderId::integer(id),
            money,
            country,
            customer_id: Some(format!("C-{customer:05}")),
            vendor: VENDORS.get(vendor).map(|&name| name.to_owned()),
            timestamp: Some(timestamp),
            items,
        })
    }

    fn market(&mut self) -> Option<(Country, Currency, i64)> {
        let total = self.markets.iter().map(|&(_, weight, ..)| weight).sum::<u32>();
        let mut left = self.random.random_range(0..total);
        self.markets
            .iter()
            .find_map(|&(country, weight, currency, factor)| {
                if left < weight {
                    return Some((country, currency, factor));
                }
                left -= weight;
                None
            })
    }

    /// An amount, at least 1 minor unit; half of them end in 99 as prices do.
    fn minor_units(&mut self, factor: i64) -> i64 {
        let quantile = self.random.random_range(0..10_000u32);
        let fine = self.random.random_range(0..1000i64);
        let segment = AMOUNTS.windows(2).find_map(|pair| match pair {
            &[(from, low), (to, high)] if quantile < to => Some((from, low, to, high)),
            _ => None,
        });
        let (from, low, to, high) = segment.unwrap_or((0, 199, 10_000, 199));
        let place = i64::from(quantile - from) * 1000 + fine;
        let cents = low + (high - low) * place / (i64::from(to - from) * 1000);
        let minor = (cents * factor / 1000).max(1);
        if self.random.random_bool(0.5) {
            minor - minor % 100 + 99
        } else {
            minor
        }
    }

    /// A rank from 0 below `2^doublings`, low ones far more often.
    fn ranked(&mut self, doublings: u32) -> u64 {
        let span = 1u64 << self.random.random_range(0..=doublings);
        self.random.random_range(0..span)
    }

    /// One to four lines whose prices add up to the amount.
    fn items(&mut self, money: Money) -> Vec<NewItem> {
        let count = self.random.random_range(1..=4i64).min(money.minor.0);
        let mut left = money.minor.0;
        (0..count)
            .map(|index| {
                let lines_after = count - index - 1;
                let part = if lines_after == 0 {
                    left
                } else {
                    self.random.random_range(1..=left - lines_after)
                };
                left -= part;
                let quantity = match self.random.random_range(1..=3) {
                    quantity if part % quantity == 0 => quantity,
                    _ => 1,
                };
                let article = self.random.random_range(0..ARTICLES.len());
                NewItem {
                    sku: format!("SKU-{:04}", article * 37 + 1000),
                    description: ARTICLES.get(article).map(|&name| name.to_owned()),
                    quantity,
                    unit_price: Money {
                        minor: MinorUnits(part / quantity),
                        currency: money.currency,
                    }
                    .into(),
                }
            })
            .collect()
    }
}

impl Source for Generator {
    fn next_entry(&mut self, now: EventTime) -> Result<Option<Entry>, SourceError> {
        let Some(order) = self.next_order(now) else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(512);
        order.encode(&mut bytes);
        match admit(&bytes, order.money.currency, now) {
            Ok(order) => Ok(Some(Entry::Order { line: 0, order })),
            Err(rejection) => Err(SourceError::Unreadable(format!(
                "the generator made a bad order: {rejection}"
            ))),
        }
    }

    fn orders(&self) -> Option<u64> {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Decimal;
    use std::collections::BTreeMap;

    const NOW: EventTime = EventTime(1_705_029_300_000);

    fn sum(items: &[NewItem]) -> Decimal {
        items.iter().fold(Decimal::ZERO, |sum, item| {
            sum.plus(item.unit_price.times(item.quantity).unwrap()).unwrap()
        })
    }

    fn encoded(generator: &mut Generator) -> Vec<String> {
        std::iter::from_fn(|| {
            let mut out = Vec::new();
            generator.next_order(NOW)?.encode(&mut out);
            Some(String::from_utf8(out).unwrap())
        })
        .collect()
    }

    #[test]
    fn an_order_depends_on_its_seed_and_id_only() {
        let from_one = encoded(&mut Generator::new(7, 1, Some(50), GeneratedTime::Now));
        let from_thirty = encoded(&mut Generator::new(7, 31, Some(20), GeneratedTime::Now));
        assert_eq!(from_one[30..], from_thirty);
        assert_ne!(
            from_one,
            encoded(&mut Generator::new(8, 1, Some(50), GeneratedTime::Now))
        );
        // Changes of the generator change what people compare across versions: make them on purpose.
        assert_eq!(from_one[0], include_str!("generator.golden.json").trim_end());
    }

    #[test]
    fn times_are_fixed_when_a_start_is_given() {
        let time = GeneratedTime::From {
            start: EventTime(0),
            step_ms: 20,
        };
        let mut generator = Generator::new(7, 1, Some(3), time);
        let times: Vec<_> = std::iter::from_fn(|| generator.next_order(NOW))
            .map(|order| order.timestamp.unwrap().0)
            .collect();
        assert_eq!(times, [0, 20, 40]);
    }

    #[test]
    fn orders_look_like_a_shop() {
        let mut generator = Generator::new(1, 1, Some(20_000), GeneratedTime::Now);
        let (mut hits, mut orders) = (0, 0);
        let mut countries = BTreeMap::<String, u32>::new();
        let mut customers = BTreeMap::<String, u32>::new();
        while let Some(order) = generator.next_order(NOW) {
            orders += 1;
            let exponent = u32::from(order.money.currency.exponent());
            let over = order.money.minor.0 > 300 * 10i64.pow(exponent);
            hits += u32::from(over && !["US", "CA"].contains(&order.country.as_str()));
            *countries.entry(order.country.to_string()).or_default() += 1;
            *customers.entry(order.customer_id.clone().unwrap()).or_default() += 1;
            assert_eq!(
                sum(&order.items).round_half_even(order.money.currency),
                Some(order.money)
            );
            assert!(order.money.minor.0 > 0);
        }
        assert_eq!(orders, 20_000);
        assert!((2000..=4000).contains(&hits), "{hits} of {orders} hit the rule");
        assert_eq!(countries.len(), MARKETS.len());
        assert!((7000..8200).contains(&countries["US"]), "{countries:?}");
        let busiest = customers.values().max().copied().unwrap();
        assert!(
            busiest > 1000 && customers.len() > 4000,
            "{busiest} of {}",
            customers.len()
        );
    }
}
