// The live part of the page: present traffic. Everything else works without it. Texts are set as texts, never as HTML.
"use strict";
(() => {
  const part = document.getElementById("live");
  const rows = document.getElementById("live-rows");
  const status = document.getElementById("live-status");
  const button = document.getElementById("live-pause");
  if (!part || !window.EventSource) return;
  let source = null;

  const say = (text) => { if (status.textContent !== text) status.textContent = text; };
  const cell = (name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (name === "th") made.scope = "row";
    return made;
  };
  const show = (told) => {
    for (const [id, text] of Object.entries(told.numbers)) {
      const place = document.getElementById("live-" + id);
      if (place) place.textContent = text;
    }
    rows.replaceChildren(...told.rows.map((row) => {
      const line = document.createElement("tr");
      line.append(...row.map((text, at) => cell(at === 0 ? "th" : "td", text)));
      return line;
    }));
  };
  const stop = () => {
    if (source) source.close();
    source = null;
    button.textContent = "Resume";
    say("paused");
  };
  const start = () => {
    source = new EventSource("/live");
    source.onopen = () => say("live");
    source.onmessage = (event) => show(JSON.parse(event.data));
    source.onerror = () => say(source && source.readyState === EventSource.CLOSED ? "no live view: too many browsers watch, or the login has expired; reload the page" : "connection lost, retrying");
    button.textContent = "Pause";
  };
  button.hidden = false;
  button.addEventListener("click", () => (source ? stop() : start()));
  start();
})();
