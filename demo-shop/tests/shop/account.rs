use end_to_end::visitor::Visitor;
use http::StatusCode;

use crate::support::{Form, Shop, add, checkout, log_in, register, text_of};

#[tokio::test]
async fn a_guests_cart_and_orders_become_the_accounts() {
    let shop = Shop::start(2).await;
    let first = Visitor::new();
    add(&first, shop.url(0), "tide-mug", 1).await;
    checkout(&first, shop.url(0)).await.send(&first, shop.url(0)).await.success().unwrap();
    add(&first, shop.url(0), "tide-mug", 2).await;
    let as_guest = first.cookies();
    register(&first, shop.url(1), "Ada@Example.com").await;
    assert_ne!(first.cookies(), as_guest, "signing in changes the session's id");

    let account = first.get(&format!("{}/account", shop.url(0))).await.unwrap();
    assert_eq!(text_of(&account, "account-email"), "ada@example.com");
    assert!(account.text().contains("Welcome, Ada Lovelace."));
    assert!(account.text().contains("/orders/"), "the guest's order is the account's");
    assert_eq!(text_of(&account, "session-state"), "signed in");
    assert_eq!(first.cart(shop.url(0)).await.unwrap().lines["tide-mug"], 2);

    let second = Visitor::new();
    add(&second, shop.url(1), "tide-mug", 3).await;
    add(&second, shop.url(1), "moss-vase", 1).await;
    let welcome = log_in(&second, shop.url(0), "ada@example.com", "correct horse battery").await;
    assert_eq!(welcome.header("location"), "/account", "{}", welcome.text());
    for visitor in [&first, &second] {
        let lines = visitor.cart(shop.url(1)).await.unwrap().lines;
        assert_eq!((lines["tide-mug"], lines["moss-vase"]), (5, 1), "one cart on both devices");
    }
}

#[tokio::test]
async fn logging_out_ends_the_session_everywhere() {
    let shop = Shop::start(2).await;
    let visitor = Visitor::new();
    register(&visitor, shop.url(0), "ada@example.com").await;
    add(&visitor, shop.url(0), "tide-mug", 1).await;
    let kept = visitor.fork();
    let account = visitor.get(&format!("{}/account", shop.url(1))).await.unwrap();
    Form::on(&account, "/logout", "Log out").send(&visitor, shop.url(1)).await.success().unwrap();
    for device in [&visitor, &kept] {
        let account = device.get(&format!("{}/account", shop.url(0))).await.unwrap();
        assert_eq!(account.header("location"), "/login?next=/account");
        assert!(device.cart(shop.url(0)).await.unwrap().lines.is_empty());
    }
    log_in(&visitor, shop.url(0), "ada@example.com", "correct horse battery").await.success().unwrap();
    assert_eq!(visitor.cart(shop.url(1)).await.unwrap().lines["tide-mug"], 1, "the account kept its cart");
}

#[tokio::test]
async fn the_account_shows_its_devices_and_logs_them_out() {
    let shop = Shop::start(2).await;
    let (home, phone, tablet) = (Visitor::new(), Visitor::new(), Visitor::new());
    register(&home, shop.url(0), "ada@example.com").await;
    let account = |visitor: &Visitor, replica: usize| {
        let (visitor, url) = (visitor.clone(), format!("{}/account", shop.url(replica)));
        async move { visitor.get(&url).await.unwrap() }
    };
    assert!(!account(&home, 1).await.text().contains("Log out everywhere else"), "there is nowhere else");
    for device in [&phone, &tablet] {
        log_in(device, shop.url(1), "ada@example.com", "correct horse battery").await.success().unwrap();
    }
    let page = account(&home, 0).await;
    assert_eq!(page.text().matches("action=\"/account/devices/log-out\"").count(), 3);
    assert_eq!(page.text().matches("this device</span>").count(), 1);
    assert!(page.text().contains("Network 127.0.0.0/24"), "{}", page.text());
    for (_, id) in home.cookies().into_iter().chain(phone.cookies()) {
        assert!(!page.text().contains(&id), "no session id is on the page");
    }

    // One of the others, by the form of its line.
    let other = page.text().split("<li>").filter(|line| line.contains("/account/devices/log-out\"")).last().unwrap().to_owned();
    let handle = other.split_once("name=\"device\" value=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let form = Form { action: "/account/devices/log-out".into(), fields: vec![("device".into(), handle)] };
    for message in ["That device is logged out.", "That device was not logged in any more."] {
        form.send(&home, shop.url(1)).await.success().unwrap();
        assert!(account(&home, 0).await.text().contains(message), "{message}");
    }
    let mut logged_in = Vec::new();
    for device in [&phone, &tablet] {
        logged_in.push(account(device, 0).await.status == StatusCode::OK);
    }
    logged_in.sort_unstable();
    assert_eq!(logged_in, [false, true]);

    let page = account(&home, 1).await;
    Form::on(&page, "/account/devices/log-out-others", "everywhere else").send(&home, shop.url(0)).await.success().unwrap();
    assert!(account(&home, 1).await.text().contains("One other device is logged out."));
    for device in [&phone, &tablet] {
        assert_eq!(account(device, 1).await.header("location"), "/login?next=/account");
    }

    // The device that asks.
    let page = account(&home, 0).await;
    Form::on(&page, "/account/devices/log-out", "device").send(&home, shop.url(0)).await.success().unwrap();
    assert_eq!(account(&home, 1).await.header("location"), "/login?next=/account");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_sound_the_same() {
    let shop = Shop::start(1).await;
    register(&Visitor::new(), shop.url(0), "ada@example.com").await;
    let visitor = Visitor::new();
    let wrong = log_in(&visitor, shop.url(0), "ada@example.com", "incorrect horse").await;
    let unknown = log_in(&visitor, shop.url(0), "nobody@example.com", "incorrect horse").await;
    for answer in [&wrong, &unknown] {
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(text_of(&wrong, "mistake"), text_of(&unknown, "mistake"));

    let page = visitor.get(&format!("{}/register", shop.url(0))).await.unwrap();
    let form = Form::on(&page, "/register", "password").with("name", "Ada").with("email", "ada@example.com");
    let taken = form.clone().with("password", "long enough").send(&visitor, shop.url(0)).await;
    assert_eq!(taken.status, StatusCode::UNPROCESSABLE_ENTITY);
    for password in ["seven77".to_owned(), "x".repeat(129)] {
        let answer = form.clone().with("password", &password).send(&visitor, shop.url(0)).await;
        assert_eq!(text_of(&answer, "mistake"), "A password has 8 to 128 characters.");
    }
}
