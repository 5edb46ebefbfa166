#!/usr/bin/env python3
"""A real browser at the status page (t-35-status-page).

    browser.py history FILE                     writes thirty days of made-up traffic
    browser.py look BASE TOKEN FOLDER [AXE]     logs in, looks at every page in every dress, holds two items
    browser.py act BASE TOKEN FOLDER            releases them, deletes by filter, logs out

Fails when a page has a script, breaks its content security policy, says anything on the console, is wider than a phone,
or keeps people out as far as axe-core can tell.
"""

import base64
import json
import os
import random
import sys
import time
import zlib


def history(path):
    chance = random.Random(4711)
    now = int(time.time())

    def counts(second, seconds):
        hour = second // 3600 % 24
        day = second // 86400 % 7
        busy = (1.0 if 7 <= hour < 19 else 0.25) * (0.35 if day in (2, 3) else 1.0) * seconds / 60
        accepted = int(chance.gauss(9, 3) * busy) if busy * 9 > 1 else int(chance.random() < busy)
        accepted = max(accepted, 0)
        if chance.random() < 0.004:
            accepted += int(90 * seconds / 60)
        failed = sum(chance.random() < 0.01 for _ in range(min(accepted, 3000)))
        deferred = sum(chance.random() < 0.06 for _ in range(min(accepted, 3000)))
        delivered = max(accepted - failed - deferred // 3, 0)
        shares = [0.17, 0.34, 0.02, 0.05, 0.405, 0.015]
        drawn = chance.choices(range(6), shares, k=min(delivered, 4000))
        parts = [drawn.count(n) for n in range(6)]
        parts[4] += delivered - sum(parts)
        return [accepted, delivered, deferred, failed, *parts]

    minutes = [[n, counts(n * 60, 60)] for n in range(now // 60 - 1440, now // 60) if not 700 < now // 60 - n < 730]
    hours = [[n, counts(n * 3600, 3600)] for n in range(now // 3600 - 715, now // 3600 + 1)]
    body = json.dumps({"minutes": minutes, "hours": hours}, separators=(",", ":")).encode()
    with open(path, "wb") as file:
        file.write(b"stsrelay-history 1 %08x\n" % zlib.crc32(body) + body)


class Browser:
    def __init__(self, base, token, folder, axe=""):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        self.base, self.token, self.folder = base, token, folder
        self.axe = open(axe, encoding="utf-8").read() if axe else ""
        options = webdriver.ChromeOptions()
        for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                         "--hide-scrollbars", "--force-color-profile=srgb", "--window-size=1280,900",
                         "--disable-background-networking", "--no-first-run"]:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.add_argument("--user-data-dir=" + os.path.join(os.environ["S"], "browser-" + os.environ["STEP"]))
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.driver.set_page_load_timeout(30)
        self.found = 0

    def go(self, path):
        self.driver.get(self.base + path)
        self.sane(path)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def press(self, selector):
        self.find(selector).click()
        self.sane(selector)

    def text(self):
        return self.find("body").text

    def expect(self, words):
        text = self.text()
        if words not in text:
            self.shoot("failed")
            raise SystemExit(f"{self.driver.current_url} does not say {words!r}:\n{text[:3000]}")

    def sane(self, what):
        said = [entry for entry in self.driver.get_log("browser") if entry["source"] != "recommendation"]
        if said:
            raise SystemExit(f"{what}: the console says {said}")
        scripts = self.driver.execute_script("return document.scripts.length")
        outside = self.driver.execute_script(
            "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(arguments[0]))",
            self.base)
        sheets = self.driver.execute_script("return document.styleSheets.length")
        if scripts or outside or sheets != 1:
            raise SystemExit(f"{what}: {scripts} scripts, {sheets} style sheets, from elsewhere {outside}")

    def dress(self, dark=False, phone=False, calm=True):
        width = 390 if phone else 1280
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": 844 if phone else 900, "deviceScaleFactor": 2 if phone else 1, "mobile": phone})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"}]})

    def shoot(self, name):
        size = self.driver.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.scrollHeight, innerWidth]")
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {
            "format": "png", "captureBeyondViewport": True,
            "clip": {"x": 0, "y": 0, "width": size[2], "height": min(size[1], 6000), "scale": 1}})
        with open(os.path.join(self.folder, name + ".png"), "wb") as file:
            file.write(base64.b64decode(shot["data"]))
        if name == "overview-light":
            # Small enough for a README.
            shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {
                "format": "webp", "quality": 80, "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": size[2], "height": min(size[1], 1060), "scale": 1}})
            with open(os.path.join(self.folder, name + ".webp"), "wb") as file:
                file.write(base64.b64decode(shot["data"]))
        if size[0] > size[2]:
            raise SystemExit(f"{name}: {size[0]} pixels wide in a window of {size[2]}")

    def barriers(self, name):
        if not self.axe:
            return
        self.driver.execute_script(self.axe)
        result = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(r => done(r.violations))")
        for violation in result:
            self.found += 1
            print(f"barrier on {name}: {violation['id']} ({violation['impact']}): {violation['help']}")
            for node in violation["nodes"][:4]:
                print("   ", node["html"][:200], "|", node["failureSummary"].replace("\n", " ")[:300])

    def log_in(self):
        self.go("/")
        if "/login" not in self.driver.current_url:
            raise SystemExit("no login is asked for")
        self.find("#token").send_keys("wrong")
        # An answer of 403 is an error to the console.
        self.find("button").click()
        self.driver.get_log("browser")
        self.expect("That is not the token.")
        self.find("#token").send_keys(self.token)
        self.press("button")
        self.expect("Overview")


def look(browser):
    driver = browser.driver
    browser.go("/login")
    for dark, phone, name in [(False, False, "login-light"), (True, True, "login-dark-phone")]:
        browser.dress(dark, phone)
        browser.shoot(name)
        browser.barriers(name)
    browser.dress()
    browser.log_in()
    browser.go("/queue")
    ids = [element.text for element in driver.find_elements("css selector", "tbody a.id")]
    assert len(ids) == 7, ids
    browser.find("#search").send_keys("s35enforce.example\n")
    browser.sane("search")
    browser.expect("What becomes of mail now")
    browser.expect("Mail goes, as far as is known without connecting:")
    browser.go("/destination?name=s35dane.example&connect=yes")
    browser.expect("a TLSA record matches the certificate")
    browser.go("/destination?name=s35dane.example")
    # A message that was delivered is found by the Message-ID that its evidence has.
    pages = {
        "overview": "/", "overview-hour": "/?range=hour", "overview-month": "/?range=month", "queue": "/queue",
        "queue-filter": "/queue?domain=s35old.example&state=deferred", "queue-none": "/queue?state=held",
        "message": "/message?id=" + ids[0], "message-wrong": "/message?id=" + ids[5].split(".")[0],
        "destinations": "/destinations", "destination-enforce": "/destination?name=s35enforce.example",
        "destination-old": "/destination?name=s35old.example",
        "destination-connect": "/destination?name=s35dane.example&connect=yes",
        "destination-frozen": "/destination?name=s35away.example",
        "destination-none": "/destination?name=never.heard.of.example", "reports": "/reports",
        "preview": "/report/preview?domain=s35old.example", "changes": "/changes", "suppressions": "/suppressions",
        "search": "/search?q=bob@s35old.example",
    }
    for name, path in pages.items():
        browser.dress()
        browser.go(path)
        for dark, phone, kind in [(False, False, "light"), (True, False, "dark"), (False, True, "phone"),
                                  (True, True, "phone-dark")]:
            browser.dress(dark, phone)
            browser.shoot(f"{name}-{kind}")
            if kind in ("light", "phone-dark") or name == "overview":
                browser.barriers(f"{name}-{kind}")
    browser.dress(calm=False)

    # By keyboard alone: the first stop skips to the content, and what has the focus can be seen.
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    browser.go("/queue")
    ActionChains(driver).send_keys(Keys.TAB).perform()
    assert driver.switch_to.active_element.text == "Skip to the content", driver.switch_to.active_element.text
    ActionChains(driver).send_keys(Keys.ENTER).send_keys(Keys.TAB).perform()
    focus = driver.switch_to.active_element
    assert focus.get_attribute("id") == "sender", focus.get_attribute("outerHTML")
    assert driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focus) == "solid"

    # Two items are ticked and held: counted, confirmed, done, told.
    for box in driver.find_elements("css selector", "input[name=item]")[:2]:
        box.click()
    browser.press("button[value=hold]")
    browser.expect("Hold 2 items?")
    browser.shoot("confirm-light")
    browser.barriers("confirm")
    browser.press(".confirm button")
    browser.expect("2 items held")
    browser.shoot("held-light")


def act(browser):
    browser.log_in()
    browser.go("/queue?state=held")
    browser.find("input[value=fitting]").click()
    browser.press("button[value=release]")
    browser.expect("Release 2 items?")
    browser.press(".confirm button")
    browser.expect("2 items released")
    # Deleting asks twice, and for the number.
    browser.go("/queue?domain=s35old.example")
    browser.find("input[value=fitting]").click()
    browser.press("button[value=delete]")
    browser.expect("Delete 5 items?")
    browser.press(".confirm button")
    browser.expect("Write down how many")
    browser.shoot("delete-light")
    browser.barriers("delete")
    browser.find("#number").send_keys("4")
    browser.press(".confirm button")
    browser.expect("That was not the number.")
    browser.find("#number").send_keys("5")
    browser.press(".confirm button")
    browser.expect("5 items deleted")
    # One destination: thawed, its policy fetched, forgotten.
    browser.go("/destination?name=s35away.example")
    browser.press("button[value=thaw]")
    browser.expect("s35away.example is thawed")
    browser.go("/destination?name=s35enforce.example")
    browser.press("button[value=refetch]")
    browser.expect("fetched: a policy of mode enforce")
    browser.press("button[value=forget]")
    browser.expect("Forget the policy of")
    browser.press(".confirm button")
    browser.expect("is forgotten")
    browser.press("footer button")
    browser.expect("Log in")
    browser.go("/queue")
    browser.expect("Log in")


def main():
    if sys.argv[1] == "history":
        history(sys.argv[2])
        return
    browser = Browser(*sys.argv[2:])
    try:
        {"look": look, "act": act}[sys.argv[1]](browser)
    finally:
        browser.driver.quit()
    if browser.found:
        raise SystemExit(f"{browser.found} barriers")


main()
