// Keeps the page current: asks once a second whether anything changed and, if so, takes over the
// phones from a freshly rendered page. There is no second rendering here, and nothing is built
// from message text.
"use strict";

(() => {
  const main = document.getElementById("main");
  const news = document.getElementById("news");
  const { base, number } = main.dataset;
  let serial = Number(main.dataset.serial);

  const ask = async (path) => {
    const answer = await fetch(path, { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer;
  };

  const say = (words) => {
    if (news.textContent !== words) news.textContent = words;
  };

  const changed = async () => {
    const query = new URLSearchParams({ after: String(serial), limit: "1" });
    if (number) query.set("number", number);
    const now = await (await ask(`${base}/messages?${query}`)).json();
    return now.serial !== serial;
  };

  // What a reader has opened stays open; what was not there before is shown coming in.
  const settle = (before, fresh) => {
    const known = (details) => before?.querySelector(`details[data-key="${details.dataset.key}"]`);
    for (const details of fresh.querySelectorAll("details")) {
      if (known(details)?.open) details.open = true;
    }
  };

  const comeIn = (before, fresh) => {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const bubble of fresh.querySelectorAll(".bubble")) {
      const { key } = bubble.querySelector("details").dataset;
      if (before?.querySelector(`.bubble details[data-key="${key}"]`)) continue;
      bubble.animate([{ opacity: 0, transform: "translateY(.4rem)" }, {}], { duration: 350 });
    }
  };

  // Phones that look the same are left alone, so that focus and selection survive.
  const refresh = async () => {
    const html = await (await ask(location.href)).text();
    const page = new DOMParser().parseFromString(html, "text/html");
    const phones = main.querySelector("#phones");
    const fresh = [...page.getElementById("phones").children];
    fresh.forEach((phone, place) => {
      const before = phone.id ? document.getElementById(phone.id) : null;
      settle(before, phone);
      const same = before?.isEqualNode(phone);
      const shown = same ? before : phone;
      if (phones.children[place] !== shown) phones.insertBefore(shown, phones.children[place]);
      if (same) return;
      comeIn(before, phone);
      before?.remove();
    });
    while (phones.children.length > fresh.length) phones.lastElementChild.remove();
    serial = Number(page.getElementById("main").dataset.serial);
  };

  const look = async () => {
    try {
      if (!document.hidden && (await changed())) await refresh();
      say("Live");
      news.classList.remove("broken");
    } catch {
      say("No answer; trying again");
      news.classList.add("broken");
    }
    setTimeout(look, 1000);
  };

  document.getElementById("refresh").hidden = true;
  look();
})();
