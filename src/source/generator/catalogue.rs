//! The fixed lists that sales are drawn from, with their weights.

/// Something drawn with a weight; weights of a list add up to [`WEIGHT_SUM`].
pub type Weighted<T> = (T, u32);

pub const WEIGHT_SUM: u32 = 100;

pub const FIRST_NAMES: [&str; 20] = [
    "Vihaan", "Pooja", "Sneha", "Aditya", "Karan", "Aarav", "Rohit", "Aman", "Simran", "Mohit", "Anjali", "Arjun", "Vikas",
    "Priya", "Vivaan", "Sunita", "Kabir", "Sahil", "Neha", "Ritika",
];

pub const LAST_NAMES: [&str; 10] = ["Sharma", "Kumar", "Singh", "Reddy", "Kapoor", "Verma", "Mehta", "Gupta", "Patel", "Joshi"];

/// Product number *n* is the entry *n* − 1. Quotes, ampersands and apostrophes are there on purpose.
pub const PRODUCTS: [&str; 50] = [
    "Wireless Earbuds",
    "Smartphone Case",
    "USB-C Charger",
    "Bluetooth Speaker",
    "Smartwatch",
    "Gaming Mouse",
    "Mechanical Keyboard",
    "4K Monitor",
    "Laptop Sleeve 15\"",
    "External SSD 1TB",
    "Noise Cancelling Headphones",
    "Fitness Band",
    "Action Camera",
    "Drone Mini",
    "Instant Pot",
    "Air Fryer",
    "Coffee Maker",
    "Salt & Pepper Mill",
    "LED Desk Lamp",
    "Water Bottle",
    "Backpack",
    "Yoga Mat",
    "Cookware Set",
    "Chef's Knife 8\"",
    "Running Shoes",
    "Women's Jacket",
    "Men's Wallet",
    "Jeans",
    "T-Shirt",
    "Dress Shirt",
    "Kids Toy Car",
    "Building Blocks",
    "Puzzle 1000pc",
    "Board Game",
    "Desk Plant",
    "Office Chair",
    "Router AC1200",
    "Tablet 10\"",
    "Graphic Tablet",
    "Microphone",
    "Webcam Full HD",
    "HDMI Cable 2m",
    "Bath & Body Set",
    "Power Bank 20000mAh",
    "Phone Tripod",
    "Car Charger",
    "Memory Card 128GB",
    "Cookbook",
    "Children's Book",
    "Novel Bestseller",
];

pub const CATEGORIES: [&str; 6] = ["Books", "Clothing", "Electronics", "Home & Kitchen", "Sports & Outdoors", "Toys & Games"];

pub const BRANDS: [&str; 10] =
    ["Apex", "BrightLux", "CoreTech", "FitLife", "HomeEase", "KiddoFun", "NexPro", "ReadMore", "UrbanStyle", "Zenith"];

/// Discounts in percent. Their mean keeps the revenue of 100,000 orders near 91.8 million.
pub const DISCOUNTS_PERCENT: [Weighted<u32>; 7] = [(0, 45), (5, 12), (10, 17), (15, 11), (20, 7), (25, 4), (30, 4)];

pub const TAX_RATES_PERCENT: [u32; 5] = [0, 5, 8, 12, 18];

pub const PAYMENT_METHODS: [Weighted<&str>; 6] =
    [("Credit Card", 35), ("Debit Card", 20), ("UPI", 15), ("Amazon Pay", 15), ("Net Banking", 10), ("Cash on Delivery", 5)];

pub const ORDER_STATUSES: [Weighted<&str>; 5] =
    [("Delivered", 75), ("Shipped", 10), ("Pending", 5), ("Cancelled", 6), ("Returned", 4)];

pub const CITIES: [(&str, &str); 20] = [
    ("New York", "NY"),
    ("Los Angeles", "CA"),
    ("Chicago", "IL"),
    ("Houston", "TX"),
    ("Phoenix", "AZ"),
    ("Philadelphia", "PA"),
    ("San Antonio", "TX"),
    ("San Diego", "CA"),
    ("Dallas", "TX"),
    ("San Jose", "CA"),
    ("Austin", "TX"),
    ("Jacksonville", "FL"),
    ("Fort Worth", "TX"),
    ("Columbus", "OH"),
    ("Charlotte", "NC"),
    ("Indianapolis", "IN"),
    ("San Francisco", "CA"),
    ("Seattle", "WA"),
    ("Denver", "CO"),
    ("Washington", "DC"),
];

pub const COUNTRIES: [Weighted<&str>; 5] =
    [("United States", 70), ("India", 15), ("Canada", 5), ("United Kingdom", 5), ("Australia", 5)];

#[cfg(test)]
mod tests {
    use super::*;

    fn sum<T>(list: &[Weighted<T>]) -> u32 {
        list.iter().map(|(_, weight)| weight).sum()
    }

    #[test]
    fn weights_add_up_and_names_are_unique() {
        let sums = [sum(&DISCOUNTS_PERCENT), sum(&PAYMENT_METHODS), sum(&ORDER_STATUSES), sum(&COUNTRIES)];
        assert_eq!(sums, [WEIGHT_SUM; 4]);
        assert_eq!(PRODUCTS.iter().collect::<std::collections::BTreeSet<_>>().len(), PRODUCTS.len());
    }
}
