// Progressive enhancement: the report is readable without it.
import { startExplorer } from "./explorer.js";
import { sortTables } from "./tables.js";

sortTables();
startExplorer().catch((error) => console.warn("The explorer did not start:", error));
