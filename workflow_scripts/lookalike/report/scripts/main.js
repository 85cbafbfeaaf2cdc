// Progressive enhancement: the report is readable without it.
import { startExplorer } from "./explorer.js";
import { sortTables } from "./tables.js";

sortTables();
// An old browser cannot unpack the data. It keeps the queries that are shown without scripts.
startExplorer().catch((error) => console.warn("The explorer did not start:", error));
