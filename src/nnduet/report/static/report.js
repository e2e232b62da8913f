// Sorting and filtering of the table of cases, and the dialog with the viewer. No data pass through innerHTML.
"use strict";
(() => {
  const table = document.getElementById("case-table");
  if (!table) return; // a training that is not finished
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headers = Array.from(table.tHead.rows[0].cells);

  const keyOf = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = Number(text);
    return { text, number, known: text !== "–" && text !== "", numeric: text !== "" && Number.isFinite(number) };
  };

  const compare = (a, b) =>
    a.numeric && b.numeric ? a.number - b.number : a.text.localeCompare(b.text, undefined, { numeric: true });

  // Undefined values stay at the end in both directions.
  const sortBy = (column, direction) => {
    const keys = new Map(rows.map((row) => [row, keyOf(row, column)]));
    rows.sort((x, y) => {
      const [a, b] = [keys.get(x), keys.get(y)];
      return a.known === b.known ? direction * compare(a, b) : a.known ? -1 : 1;
    });
    body.append(...rows);
  };

  headers.forEach((header, column) => {
    const button = header.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      headers.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortBy(column, ascending ? 1 : -1);
    });
  });

  const find = document.getElementById("find");
  const switches = { wrong: document.getElementById("only-wrong"), viewable: document.getElementById("only-viewable") };
  const filter = () => {
    const wanted = find.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      const fits =
        row.textContent.toLowerCase().includes(wanted) &&
        Object.entries(switches).every(([name, box]) => !box || !box.checked || name in row.dataset);
      row.hidden = !fits;
      count += fits;
    }
    document.getElementById("count").textContent = `${count} of ${rows.length} cases`;
  };
  find.addEventListener("input", filter);
  Object.values(switches).forEach((box) => box && box.addEventListener("change", filter));

  const dialog = document.getElementById("viewer");
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.view");
    if (!button) return;
    document.getElementById("viewer-title").textContent = button.dataset.title;
    dialog.showModal();
    window.nnduetViewer.open(document.getElementById("viewer-body"), button.dataset.volume, button.dataset.title);
  });
  document.getElementById("viewer-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => window.nnduetViewer && window.nnduetViewer.close());
})();
