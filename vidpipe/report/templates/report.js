"use strict";
// Makes tables sortable: each heading with data-key becomes a button. The address can ask for it: #sort=KEY, #sort=-KEY.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];

  const value = (row, column, isNumber) => {
    const text = row.cells[column].textContent.trim();
    if (!isNumber) return text;
    const number = Number.parseFloat(text);
    return Number.isNaN(number) ? null : number; // a dash: no value
  };

  const sort = (heading, descending) => {
    const column = headings.indexOf(heading);
    const isNumber = heading.classList.contains("number");
    const keyed = [...body.rows].map((row) => [value(row, column, isNumber), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return (descending ? -1 : 1) * (isNumber ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    });
    body.append(...keyed.map(([, row]) => row));
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  };

  for (const heading of headings.filter((cell) => cell.dataset.key)) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      sort(heading, descending);
      history.replaceState(null, "", `#sort=${descending ? "-" : ""}${heading.dataset.key}`);
    });
  }

  const sortByAddress = () => {
    const asked = /^#sort=(-?)([\w-]+)$/.exec(location.hash);
    const heading = asked && headings.find((cell) => cell.dataset.key === asked[2]);
    if (heading) sort(heading, asked[1] === "-");
  };
  window.addEventListener("hashchange", sortByAddress);
  sortByAddress();
}
