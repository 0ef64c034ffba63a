// What is live: parts of a page are fetched again, and put in place when they have changed.
// Without this module every page still says everything, as of when it was opened.

const SLOW = 10_000; // milliseconds between two looks at what has ended
const LONGEST = 30_000; // and after many that did not arrive

function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Until the page is looked at: a hidden one asks for nothing. */
async function visible() {
  while (document.hidden) {
    await new Promise((resolve) =>
      document.addEventListener("visibilitychange", resolve, { once: true }),
    );
  }
}

/** Put the new part in, keeping the place of scrolled tables and of the keyboard. */
function place(part, html) {
  const scrolled = [...part.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
  const regions = [...part.querySelectorAll("a, .scroll")];
  const focused = regions.indexOf(document.activeElement);
  part.innerHTML = html; // made by our own templates, which escape everything
  part.querySelectorAll(".scroll").forEach((one, at) => {
    if (scrolled[at]) [one.scrollLeft, one.scrollTop] = scrolled[at];
  });
  if (focused >= 0) part.querySelectorAll("a, .scroll")[focused]?.focus({ preventScroll: true });
}

/** What a screen reader is told, and what is of no use any more. */
function announce(part) {
  const answer = part.querySelector("[data-said]");
  const said = document.getElementById("said");
  if (answer && said) said.textContent = answer.dataset.said;
  const ended = part.querySelector("[data-ended]") !== null;
  document.querySelectorAll("[data-while-open]").forEach((one) => (one.hidden = ended));
  return ended;
}

async function follow(part) {
  let tag = part.dataset.tag ?? "";
  let ended = part.querySelector("[data-ended]") !== null;
  let failures = 0;
  for (;;) {
    const every = ended ? SLOW : Number(part.dataset.every);
    await wait(Math.min(LONGEST, every * 2 ** failures));
    await visible();
    try {
      const answer = await fetch(part.dataset.live, {
        headers: tag ? { "If-None-Match": tag } : {},
        cache: "no-store",
        redirect: "error",
      });
      if (answer.status === 401 || answer.status === 403) {
        location.reload(); // the session is over: the page says how to go on
        return;
      }
      failures = answer.ok || answer.status === 304 ? 0 : Math.min(failures + 1, 5);
      if (answer.ok) {
        tag = answer.headers.get("ETag") ?? "";
        place(part, await answer.text());
        ended = announce(part);
      }
    } catch {
      failures = Math.min(failures + 1, 5); // the network, or a gateway that restarts
    }
  }
}

for (const part of document.querySelectorAll("[data-live]")) follow(part);
