(() => {
  "use strict";
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const chart = document.getElementById("layer-chart");
  const places = new Map([...chart.querySelectorAll(".place")].map((place) => [place.dataset.row, place]));
  const details = document.getElementById("details");
  const filter = document.getElementById("filter");
  let sorted = "order";
  let on = null;

  const value = (row, column) => {
    const cell = row.cells[column];
    return heads[column].classList.contains("text") ? cell.textContent : Number(cell.dataset.v ?? cell.textContent);
  };

  // `key` is a column, with a minus for descending.
  const sort = (key) => {
    const down = key.startsWith("-");
    const column = heads.findIndex((head) => head.dataset.key === (down ? key.slice(1) : key));
    if (column < 0) return;
    sorted = key;
    const order = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    const keyed = rows.map((row) => [value(row, column), row]);
    keyed.sort((a, b) => (down ? -1 : 1) * order(a[0], b[0]));
    body.append(...keyed.map((pair) => pair[1]));
    heads.forEach((head, at) => {
      if (at === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };

  const narrow = () => {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !`${row.cells[1].textContent} ${row.cells[2].textContent}`.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    document.getElementById("shown").textContent = `${shown} of ${rows.length}`;
  };

  const show = (number) => {
    const place = places.get(number);
    const row = document.getElementById(`layer-${number}`);
    if (!place || !row) return;
    if (on) on.forEach((marked) => marked.classList.remove("on"));
    on = [place, row];
    on.forEach((marked) => marked.classList.add("on"));
    details.textContent = place.textContent;
  };

  // What is sorted and filtered is in the address, so that it can be linked to.
  const link = () => {
    const parts = [];
    if (sorted !== "order") parts.push(`sort=${encodeURIComponent(sorted)}`);
    if (filter.value) parts.push(`filter=${encodeURIComponent(filter.value)}`);
    history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname + location.search);
  };

  const follow = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (wanted.has("sort")) sort(wanted.get("sort"));
    if (wanted.has("filter")) filter.value = wanted.get("filter");
    narrow();
    const layer = rows.find((row) => row.cells[1].textContent === wanted.get("layer"));
    if (layer) {
      show(layer.dataset.row);
      layer.scrollIntoView({ block: "center" });
    }
  };

  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const key = head.dataset.key;
      sort(sorted === key ? `-${key}` : key);
      link();
    });
  }
  document.querySelector(".tools").hidden = false;
  details.hidden = false;
  details.textContent = "Point at a layer, or use the arrow keys, for its figures.";
  filter.addEventListener("input", () => { narrow(); link(); });
  const pointed = (event) => event.target.closest("[data-row]");
  for (const part of [chart, body]) {
    part.addEventListener("pointerover", (event) => {
      const place = pointed(event);
      if (place) show(place.dataset.row);
    });
  }
  chart.addEventListener("click", (event) => {
    const place = pointed(event);
    const row = place && document.getElementById(`layer-${place.dataset.row}`);
    if (row) row.scrollIntoView({ block: "center" });
  });
  chart.parentElement.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const now = on ? Number(on[1].dataset.row) : step > 0 ? 0 : rows.length + 1;
    show(String(Math.min(Math.max(now + step, 1), rows.length)));
  });
  addEventListener("hashchange", follow);
  follow();
})();
